// ai with @ai-sdk/openai: the Responses API, streamed, with the settings of docs/clients.md.
import { openai } from "@ai-sdk/openai";
import { main } from "./shared.mjs";
import { answer } from "./vercel.mjs";

await main(() => answer((model) => openai(model), { openai: { store: false } }));
