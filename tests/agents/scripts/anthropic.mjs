// @anthropic-ai/sdk: messages with thinking, streamed; the tool loop is the library's.
import Anthropic from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import { asked, main, PNG, tool } from "./shared.mjs";

const text = (message) => message.content.map((block) => block.text ?? "").join("");

await main(async () => {
  const { kind, model, prompt } = asked;
  const content = [{ type: "text", text: prompt }];
  if (kind === "picture")
    content.push({ type: "image", source: { type: "base64", media_type: "image/png", data: PNG } });
  const thinking = { type: "enabled", budget_tokens: 1024 };
  const body = { model, max_tokens: 2048, thinking, messages: [{ role: "user", content }] };
  const client = new Anthropic();
  if (kind !== "tools") return text(await client.messages.stream(body).finalMessage());
  const { name, description, schema, run } = tool;
  const tools = [betaTool({ name, description, inputSchema: schema, run })];
  let last;
  for await (const stream of client.beta.messages.toolRunner({ ...body, tools, stream: true }))
    last = await stream.finalMessage();
  return text(last);
});
