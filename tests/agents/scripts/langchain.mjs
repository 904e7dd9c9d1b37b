// langchain: an agent of @langchain/openai, streamed, with the environment's AGENT_API: chat or responses.
import { ChatOpenAI } from "@langchain/openai";
import { createAgent, tool as functionTool } from "langchain";
import { asked, DATA_URL, main, tool } from "./shared.mjs";

await main(async () => {
  const { kind, model, prompt } = asked;
  const content = [{ type: "text", text: prompt }];
  if (kind === "picture") content.push({ type: "image_url", image_url: { url: DATA_URL } });
  const { name, description, schema, run } = tool;
  const tools = kind === "tools" ? [functionTool(run, { name, description, schema })] : [];
  const useResponsesApi = process.env.AGENT_API === "responses";
  const agent = createAgent({ model: new ChatOpenAI({ model, useResponsesApi, streaming: true }), tools });
  const streamMode = ["messages", "values"];
  let last;
  for await (const [mode, data] of await agent.stream({ messages: [{ role: "user", content }] }, { streamMode }))
    if (mode === "values") last = data;
  return last.messages.at(-1).text;
});
