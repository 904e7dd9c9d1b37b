// openai: the Responses API, streamed. The library has no tool loop for it; this one is that of its documentation.
// It takes no helper (responses.stream, responses.parse): these add members to the items, which the service refuses.
import OpenAI from "openai";
import { asked, DATA_URL, main, tool } from "./shared.mjs";

await main(async () => {
  const { kind, model, prompt } = asked;
  const content = [{ type: "input_text", text: prompt }];
  if (kind === "picture") content.push({ type: "input_image", image_url: DATA_URL, detail: "auto" });
  const input = [{ role: "user", content }];
  const { name, description, schema, run } = tool;
  const read = { type: "function", name, description, parameters: schema, strict: true };
  const client = new OpenAI();
  for (;;) {
    const body = { model, input, tools: kind === "tools" ? [read] : [], stream: true };
    let output = [];
    let text = "";
    for await (const event of await client.responses.create(body)) {
      if (event.type === "response.output_text.delta") text += event.delta;
      if (event.type === "response.completed") output = event.response.output;
    }
    const calls = output.filter((item) => item.type === "function_call");
    if (!calls.length) return text;
    input.push(...output);
    for (const { call_id, arguments: given } of calls)
      input.push({ type: "function_call_output", call_id, output: await run(JSON.parse(given)) });
  }
});
