// ANCHOR: chat
import { createOpenAI } from "@ai-sdk/openai";
import { Output, embed, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const artel = createOpenAI({ baseURL: "http://127.0.0.1:7430/v1", apiKey: process.env.ARTEL_TOKEN });

const { textStream } = streamText({ model: artel.chat("chat"), prompt: "What is a GGUF file?" });
for await (const text of textStream) process.stdout.write(text);
console.log();
// ANCHOR_END: chat

// ANCHOR: tools
const answer = await generateText({
  model: artel.chat("chat"),
  prompt: "How is the weather in Oslo?",
  tools: {
    get_weather: tool({
      description: "Tells the weather of a city.",
      inputSchema: z.object({ city: z.string().max(40) }),
      execute: async ({ city }) => `sunny in ${city}, 18 degrees`,
    }),
  },
  stopWhen: stepCountIs(3),
});
console.log(answer.text, answer.steps.length);
// ANCHOR_END: tools

// ANCHOR: schema
const { output } = await generateText({
  model: artel.chat("chat"),
  prompt: "My lamp came broken, and I need it today.",
  output: Output.object({
    schema: z.object({ kind: z.enum(["question", "complaint", "order"]), is_urgent: z.boolean() }),
  }),
});
console.log(output);
// ANCHOR_END: schema

// ANCHOR: responses
const { text } = await generateText({
  model: artel("chat"),
  prompt: "Say hello.",
  providerOptions: { openai: { store: false } },
});
console.log(text);
// ANCHOR_END: responses

// ANCHOR: embeddings
const { embedding } = await embed({ model: artel.embedding("minilm"), value: "A cat sleeps." });
console.log(embedding.length);
// ANCHOR_END: embeddings

// ANCHOR: compatible
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";

const compatible = createOpenAICompatible({
  name: "artel",
  baseURL: "http://127.0.0.1:7430/v1",
  apiKey: process.env.ARTEL_TOKEN,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
console.log((await generateText({ model: compatible("chat"), prompt: "Say hello." })).text);
// ANCHOR_END: compatible
