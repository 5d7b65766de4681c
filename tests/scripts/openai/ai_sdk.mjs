// The AI SDK against a daemon, by each of its ways: chat completions and responses of `@ai-sdk/openai`, with references to the
// items of earlier responses and with the items themselves, and `@ai-sdk/openai-compatible`; see `checks.mjs`.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import {
  APICallError,
  Output,
  cosineSimilarity,
  embed,
  embedMany,
  generateObject,
  generateText,
  stepCountIs,
  streamObject,
  streamText,
  tool,
} from "ai";
import { z } from "zod";
import {
  AGENT_ANSWER,
  AGENT_ARGUMENTS,
  AGENT_QUESTION,
  AGENT_RESULT,
  API_KEY,
  BASE_URL,
  LIMITED_API_KEY,
  check,
  main,
  stateAtEnd,
} from "./checks.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

// The tasks of all answers: the package shows no headers of a stream that was cut off.
const answered = [];
const noting = async (...request) => {
  const response = await fetch(...request);
  answered.push(response.headers.get("x-artel-task"));
  return response;
};

const openai = createOpenAI({ baseURL: BASE_URL, apiKey: API_KEY, fetch: noting });
const compatible = createOpenAICompatible({
  name: "artel",
  baseURL: BASE_URL,
  apiKey: API_KEY,
  fetch: noting,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const ways = {
  chat: { model: (name) => openai.chat(name), options: {} },
  responses: { model: (name) => openai(name), options: {} },
  stateless: { model: (name) => openai(name), options: { providerOptions: { openai: { store: false } } } },
  compatible: { model: (name) => compatible(name), options: {} },
};

const Colour = z.object({ name: z.enum(["red", "green", "blue"]), is_warm: z.boolean() });
const fixed = { maxRetries: 0 };

// A tool, and the arguments of its calls.
function weather() {
  const asked = [];
  const get_weather = tool({
    description: "Tells the weather of a city.",
    inputSchema: z.object({ city: z.enum(["Oslo", "Lima"]) }),
    execute: async ({ city }) => {
      asked.push({ city });
      return AGENT_RESULT;
    },
  });
  return { asked, tools: { get_weather } };
}

// Reads a stream to its end; an error of it is thrown.
async function read(stream) {
  const parts = [];
  for await (const part of stream.fullStream) {
    if (part.type === "error") throw part.error;
    parts.push(part);
  }
  return parts;
}

for (const [way, { model, options }] of Object.entries(ways)) {
  const common = { ...fixed, ...options };

  check(`${way}_text`, async () => {
    const echo = await generateText({ ...common, model: model("echo"), prompt: "one two" });
    assert.deepEqual([echo.text, echo.finishReason], ["<one two>", "stop"]);
    assert.ok(echo.usage.inputTokens > 0 && echo.usage.outputTokens > 0, JSON.stringify(echo.usage));
    const chat = await generateText({
      ...common,
      model: model("chat"),
      system: "You speak briefly.",
      prompt: "Say hello.",
      temperature: 0.5,
      maxOutputTokens: 8,
    });
    assert.ok(chat.text.trim());
  });

  check(`${way}_second_turn`, async () => {
    const messages = [{ role: "user", content: "one" }];
    const first = await generateText({ ...common, model: model("echo"), messages });
    messages.push(...first.response.messages, { role: "user", content: "two" });
    const second = await generateText({ ...common, model: model("echo"), messages });
    assert.equal(second.text, "<two>");
    assert.ok(second.usage.inputTokens > first.usage.inputTokens);
  });

  check(`${way}_stream`, async () => {
    const stream = streamText({ ...common, model: model("echo"), prompt: "one two three" });
    const deltas = (await read(stream)).filter((part) => part.type === "text-delta").map((part) => part.text);
    assert.equal(deltas.join(""), "<one two three>");
    assert.ok(deltas.length > 3);
    assert.equal(await stream.finishReason, "stop");
    assert.ok((await stream.totalUsage).outputTokens > 0);
  });

  check(`${way}_tools`, async () => {
    const { asked, tools } = weather();
    const answer = await generateText({
      ...common,
      model: model("agent"),
      prompt: AGENT_QUESTION,
      tools,
      stopWhen: stepCountIs(4),
    });
    assert.deepEqual([answer.text, answer.steps.length, asked], [AGENT_ANSWER, 2, [AGENT_ARGUMENTS]]);
  });

  check(`${way}_tools_in_a_stream`, async () => {
    const { asked, tools } = weather();
    const request = { ...common, model: model("agent"), prompt: AGENT_QUESTION, tools, stopWhen: stepCountIs(4) };
    const parts = await read(streamText(request));
    const kinds = new Set(parts.map((part) => part.type));
    for (const kind of ["tool-input-start", "tool-input-delta", "tool-call", "tool-result"]) {
      assert.ok(kinds.has(kind), `${kind} in ${[...kinds]}`);
    }
    assert.deepEqual(asked, [AGENT_ARGUMENTS]);
    const text = parts.filter((part) => part.type === "text-delta").map((part) => part.text);
    assert.equal(text.join(""), AGENT_ANSWER);
  });

  check(`${way}_tool_choice`, async () => {
    const { asked, tools } = weather();
    for (const toolChoice of ["required", { type: "tool", toolName: "get_weather" }]) {
      const prompt = "How is the weather?";
      const answer = await generateText({ ...common, model: model("chat"), prompt, tools, toolChoice });
      assert.deepEqual([answer.finishReason, answer.toolCalls.length], ["tool-calls", 1]);
    }
    assert.ok(asked.length === 2 && asked.every(({ city }) => ["Oslo", "Lima"].includes(city)));
  });

  check(`${way}_schema`, async () => {
    const request = { ...common, model: model("chat"), prompt: "Name a colour." };
    Colour.parse((await generateObject({ ...request, schema: Colour })).object);
    Colour.parse((await generateText({ ...request, output: Output.object({ schema: Colour }) })).output);
    const stream = streamObject({ ...request, schema: Colour });
    let parts = 0;
    for await (const part of stream.partialObjectStream) parts += part ? 1 : 0;
    Colour.parse(await stream.object);
    assert.ok(parts > 0);
  });

  check(`${way}_cancel`, async () => {
    const abort = new AbortController();
    const request = { ...common, model: model("teller"), prompt: "Tell a story.", abortSignal: abort.signal };
    const kinds = new Set();
    for await (const part of streamText(request).fullStream) {
      if (part.type === "text-delta") abort.abort();
      kinds.add(part.type);
    }
    assert.ok(kinds.has("abort"), [...kinds].join());
    assert.equal(await stateAtEnd(answered.at(-1)), "cancelled");
  });

  check(`${way}_errors`, async () => {
    const request = { ...common, prompt: "hello" };
    const refusal = (status, words) => (error) => {
      assert.ok(APICallError.isInstance(error), String(error));
      assert.equal(error.statusCode, status);
      assert.match(error.message, words);
      return true;
    };
    await assert.rejects(generateText({ ...request, model: model("no-such-model") }), refusal(404, /no-such-model/));
    const { tools } = weather();
    await assert.rejects(generateText({ ...request, model: model("closed"), tools }), refusal(400, /tools/));
  });
}

check("embeddings", async () => {
  const values = ["A cat sleeps on the sofa.", "Interest rates rose again."];
  for (const model of [openai.embedding("minilm"), compatible.embeddingModel("minilm")]) {
    const { embeddings, usage } = await embedMany({ ...fixed, model, values });
    assert.ok(usage.tokens > 0);
    const { embedding } = await embed({ ...fixed, model, value: "A kitten naps on the couch." });
    assert.equal(embedding.length, 384);
    assert.ok(cosineSimilarity(embedding, embeddings[0]) > cosineSimilarity(embedding, embeddings[1]) + 0.2);
  }
});

check("limit", async () => {
  const limited = createOpenAI({ baseURL: BASE_URL, apiKey: LIMITED_API_KEY });
  const ask = async () => {
    for (let n = 0; n < 3; n += 1) await generateText({ ...fixed, model: limited.chat("echo"), prompt: "hello" });
  };
  await assert.rejects(ask(), (error) => {
    assert.equal(error.statusCode, 429);
    assert.ok(Number(error.responseHeaders["retry-after"]) >= 1);
    return true;
  });
});

await main();
