// Aborts an endless answer after its first piece, then asks the same model again and says how long that took.
import { createRequire } from "node:module";

const require = createRequire(process.env.HIVE_TEST_NODE_MODULES + "/");
const { Ollama } = require("ollama");
const client = new Ollama({ host: process.env.HIVE_TEST_URL });
const model = process.env.HIVE_TEST_MODEL;
const messages = [{ role: "user", content: "hello there" }];

const stream = await client.chat({ model, messages, stream: true, options: { num_predict: -1 } });
let failure = "none";
try {
  for await (const _ of stream) stream.abort();
} catch (error) {
  failure = error.name;
}
const started = performance.now();
const answer = await client.chat({ model, messages, options: { num_predict: 1 } });
console.log(JSON.stringify({ failure, done: answer.done, milliseconds: performance.now() - started }));
