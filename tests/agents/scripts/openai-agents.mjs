// @openai/agents: an agent, streamed, with the library's own settings.
import { Agent, run, tool as functionTool } from "@openai/agents";
import { asked, DATA_URL, main, tool } from "./shared.mjs";

await main(async () => {
  const { kind, model, prompt } = asked;
  const content = [{ type: "input_text", text: prompt }];
  if (kind === "picture") content.push({ type: "input_image", image: DATA_URL });
  const { name, description, schema } = tool;
  const read = functionTool({ name, description, parameters: schema, strict: true, execute: tool.run });
  const agent = new Agent({ name: "Assistant", model, tools: kind === "tools" ? [read] : [] });
  const result = await run(agent, [{ role: "user", content }], { stream: true });
  for await (const _ of result);
  await result.completed;
  return result.finalOutput;
});
