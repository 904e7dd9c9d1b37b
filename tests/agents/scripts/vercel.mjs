// streamText of the Vercel AI SDK with a model of any of its providers; the tool loop is the library's.
import { jsonSchema, stepCountIs, streamText } from "ai";
import { asked, PNG, tool } from "./shared.mjs";

export async function answer(provider, providerOptions) {
  const { kind, model, prompt } = asked;
  const content = [{ type: "text", text: prompt }];
  if (kind === "picture") content.push({ type: "file", data: PNG, mediaType: "image/png" });
  const { description, schema, run } = tool;
  const read = { description, inputSchema: jsonSchema(schema), execute: run };
  const result = streamText({
    model: provider(model),
    messages: [{ role: "user", content }],
    tools: kind === "tools" ? { [tool.name]: read } : undefined,
    stopWhen: stepCountIs(5),
    providerOptions,
    onError: () => {}, // else it prints the error itself, in its own form
  });
  for await (const part of result.fullStream) if (part.type === "error") throw part.error;
  return result.text;
}
