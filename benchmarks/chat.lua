-- wrk's requests, and its findings as one line of JSON. The token comes from the environment: process lists show none.
-- BENCH_TOKENS names a file with one token a line instead: the calls take turns with them.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("BENCH_TOKEN")
wrk.body = os.getenv("BENCH_BODY")

if os.getenv("BENCH_TOKENS") then
   local calls, turn = {}, 0

   function init()
      for token in io.lines(os.getenv("BENCH_TOKENS")) do
         wrk.headers["Authorization"] = "Bearer " .. token
         calls[#calls + 1] = wrk.format()
      end
   end

   function request()
      turn = turn % #calls + 1
      return calls[turn]
   end
end

function done(summary, latency, requests)
   local e = summary.errors
   io.write(string.format(
      '\nBENCH {"calls": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "bad_status": %d, "socket_errors": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      e.status, e.connect + e.read + e.write + e.timeout))
end
