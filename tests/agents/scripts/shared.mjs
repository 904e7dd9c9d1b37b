// What the scripts of the Node libraries share: what is asked for, the one tool, a picture, and how a script ends.
// Arguments: the kind of the case (plain, tools or picture), the model, the prompt.
import { readFile } from "node:fs/promises";

const [kind, model, prompt] = process.argv.slice(2);
export const asked = { kind, model, prompt };

export const tool = {
  name: "read_marker",
  description: "Reads the marker in a file.",
  schema: {
    type: "object",
    properties: { path: { type: "string", description: "The path of the file." } },
    required: ["path"],
    additionalProperties: false,
  },
  run: ({ path }) => readFile(path, "utf8"),
};

// A PNG of one pixel, base64.
export const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
export const DATA_URL = `data:image/png;base64,${PNG}`;

// Prints the final text of `answer`; of an error its text, and the process ends with code 1.
export async function main(answer) {
  try {
    console.log(await answer());
    process.exitCode = 0;
  } catch (error) {
    console.error(error instanceof Error ? `${error.constructor.name}: ${error.message}` : JSON.stringify(error));
    process.exitCode = 1;
  }
}
