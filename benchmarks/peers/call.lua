-- chat.lua with more headers: BENCH_HEADERS has one "name: value" a line.
dofile(os.getenv("BENCH_CHAT"))

for name, value in os.getenv("BENCH_HEADERS"):gmatch("([^:\n]+): ([^\n]+)") do
   wrk.headers[name] = value
end
