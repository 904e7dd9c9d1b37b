// ai with @ai-sdk/openai-compatible: chat completions, streamed.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { main } from "./shared.mjs";
import { answer } from "./vercel.mjs";

const provider = createOpenAICompatible({
  name: "aipassport",
  baseURL: process.env.OPENAI_BASE_URL,
  apiKey: process.env.OPENAI_API_KEY,
});
await main(() => answer(provider, {}));
