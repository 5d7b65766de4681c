// ANCHOR: client
import OpenAI from "openai";

const client = new OpenAI({ baseURL: "http://127.0.0.1:7430/v1", apiKey: process.env.ARTEL_TOKEN });
// ANCHOR_END: client

// ANCHOR: chat
const stream = await client.chat.completions.create({
  model: "chat",
  messages: [{ role: "user", content: "What is a GGUF file?" }],
  stream: true,
});
for await (const part of stream) process.stdout.write(part.choices[0]?.delta?.content ?? "");
console.log();
// ANCHOR_END: chat
