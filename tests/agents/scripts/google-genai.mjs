// @google/genai: generateContentStream with thoughts; the tool loop is the library's (automatic function calling).
import { GoogleGenAI } from "@google/genai";
import { asked, main, PNG, tool } from "./shared.mjs";

const { name, description, schema, run } = tool;
const read = {
  tool: async () => ({ functionDeclarations: [{ name, description, parametersJsonSchema: schema }] }),
  callTool: (calls) => Promise.all(calls.map(answered)),
};

async function answered(call) {
  return { functionResponse: { id: call.id, name: call.name, response: { output: await run(call.args) } } };
}

await main(async () => {
  const { kind, model, prompt } = asked;
  const parts = [{ text: prompt }];
  if (kind === "picture") parts.push({ inlineData: { mimeType: "image/png", data: PNG } });
  const config = { thinkingConfig: { includeThoughts: true }, tools: kind === "tools" ? [read] : undefined };
  const contents = [{ role: "user", parts }];
  let text = "";
  for await (const chunk of await new GoogleGenAI({}).models.generateContentStream({ model, contents, config }))
    text += chunk.text ?? "";
  return text;
});
