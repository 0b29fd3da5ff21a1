// What the official JavaScript client is used for.
import { createRequire } from "node:module";

const require = createRequire(process.env.HIVE_TEST_NODE_MODULES + "/");
const { Ollama } = require("ollama");
const key = process.env.OLLAMA_API_KEY;
const headers = key ? { Authorization: `Bearer ${key}` } : {};
const client = new Ollama({ host: process.env.HIVE_TEST_URL, headers });
const messages = [{ role: "user", content: "hello there" }];

const join = async (stream, text) => {
  let all = "";
  for await (const part of stream) all += text(part);
  return all;
};

const checks = {
  list_models: async () => (await client.list()).models.map((m) => m.name).sort(),
  chat: async () => (await client.chat({ model: "tiny-utf8", messages })).message.content,
  chat_stream: async () =>
    join(await client.chat({ model: "tiny-utf8", messages, stream: true }), (p) => p.message.content),
  generate_stream: async () =>
    join(await client.generate({ model: "tiny-utf8", prompt: "x", stream: true }), (p) => p.response),
  embed: async () => (await client.embed({ model: "tiny-embed", input: ["a", "b"] })).embeddings.map((v) => v.length),
  show: async () => (await client.show({ model: "tiny-tool" })).capabilities.sort(),
  version: async () => (await client.version()).version.split(".").slice(0, 2).join("."),
  missing_model: async () => {
    try {
      await client.chat({ model: "nope", messages });
    } catch (error) {
      return [error.status_code, error.error];
    }
  },
};

const results = {};
for (const [name, check] of Object.entries(checks)) {
  results[name] = await check().catch((error) => String(error));
}
console.log(JSON.stringify(results));
