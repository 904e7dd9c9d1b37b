// openai: chat completions, streamed; the tool loop is the library's.
import OpenAI from "openai";
import { asked, DATA_URL, main, tool } from "./shared.mjs";

await main(async () => {
  const { kind, model, prompt } = asked;
  const picture = { type: "image_url", image_url: { url: DATA_URL } };
  const content = kind === "picture" ? [{ type: "text", text: prompt }, picture] : prompt;
  const body = { model, messages: [{ role: "user", content }], stream: true };
  const completions = new OpenAI().chat.completions;
  if (kind !== "tools") return completions.stream(body).finalContent();
  const { name, description, schema, run } = tool;
  const read = { function: run, parse: JSON.parse, name, description, parameters: schema };
  return completions.runTools({ ...body, tools: [{ type: "function", function: read }] }).finalContent();
});
