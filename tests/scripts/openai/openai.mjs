// The package `openai` of npm against a daemon; see `checks.mjs`.
import assert from "node:assert/strict";
import OpenAI from "openai";
import {
  AGENT_ANSWER,
  AGENT_ARGUMENTS,
  AGENT_QUESTION,
  AGENT_RESULT,
  API_KEY,
  BASE_URL,
  LIMITED_API_KEY,
  WEATHER_SCHEMA,
  check,
  main,
  stateAtEnd,
} from "./checks.mjs";

const client = new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY, maxRetries: 0, timeout: 120_000 });
const chat = client.chat.completions;
const user = (content) => [{ role: "user", content }];

const WEATHER_TOOL = {
  type: "function",
  function: { name: "get_weather", description: "Tells the weather of a city.", parameters: WEATHER_SCHEMA },
};
const COLOUR_FORM = {
  type: "json_schema",
  json_schema: {
    name: "colour",
    strict: true,
    schema: {
      type: "object",
      properties: { name: { enum: ["red", "green", "blue"] }, is_warm: { type: "boolean" } },
      required: ["name", "is_warm"],
      additionalProperties: false,
    },
  },
};

async function chunks(request) {
  const parts = [];
  for await (const part of await chat.create({ ...request, stream: true })) parts.push(part);
  return parts;
}

const joined = (parts) => parts.map((part) => part.choices[0]?.delta.content ?? "").join("");

check("models", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  for (const id of ["auto", "chat", "echo", "chain", "minilm"]) assert.ok(ids.includes(id), `${id} in ${ids}`);
  assert.equal((await client.models.retrieve("chain")).id, "chain");
});

check("text", async () => {
  const { data, response } = await chat.create({ model: "chat", messages: user("Say hello.") }).withResponse();
  assert.equal(data.id, `chatcmpl-${response.headers.get("x-artel-task")}`);
  assert.ok(data.choices[0].message.content.trim());
  assert.ok(["stop", "length"].includes(data.choices[0].finish_reason));
  assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
  const echo = await chat.create({ model: "echo", messages: user("one two") });
  assert.equal(echo.choices[0].message.content, "<one two>");
});

check("stream", async () => {
  const parts = await chunks({ model: "echo", messages: user("one two"), stream_options: { include_usage: true } });
  assert.equal(joined(parts), "<one two>");
  assert.deepEqual(parts.at(-1).choices, []);
  assert.ok(parts.at(-1).usage.completion_tokens > 0);
  const reasons = parts.slice(0, -1).map((part) => part.choices[0].finish_reason);
  assert.equal(reasons.pop(), "stop");
  assert.ok(reasons.every((reason) => reason === null));
});

check("stream_helper", async () => {
  const stream = chat.stream({ model: "chat", messages: user("Say hello.") });
  let said = "";
  stream.on("content", (delta) => (said += delta));
  const final = await stream.finalChatCompletion();
  assert.ok(said.trim());
  assert.equal(final.choices[0].message.content, said);
});

check("tools", async () => {
  const messages = user(AGENT_QUESTION);
  const { message, finish_reason } = (await chat.create({ model: "agent", messages, tools: [WEATHER_TOOL] })).choices[0];
  assert.equal(finish_reason, "tool_calls");
  assert.deepEqual(message.tool_calls.map((call) => JSON.parse(call.function.arguments)), [AGENT_ARGUMENTS]);
  messages.push(message, { role: "tool", tool_call_id: message.tool_calls[0].id, content: AGENT_RESULT });
  const answer = await chat.create({ model: "agent", messages, tools: [WEATHER_TOOL] });
  assert.equal(answer.choices[0].message.content, AGENT_ANSWER);
  const required = await chat.create({
    model: "chat",
    messages: user("How is the weather?"),
    tools: [WEATHER_TOOL],
    tool_choice: "required",
  });
  const [call] = required.choices[0].message.tool_calls;
  assert.ok(["Oslo", "Lima"].includes(JSON.parse(call.function.arguments).city));
});

check("tools_in_a_stream", async () => {
  const parts = await chunks({ model: "agent", messages: user(AGENT_QUESTION), tools: [WEATHER_TOOL] });
  const deltas = parts.flatMap((part) => part.choices[0]?.delta.tool_calls ?? []);
  assert.ok(deltas.length > 0 && deltas.every((delta) => delta.index === 0));
  assert.deepEqual(JSON.parse(deltas.map((delta) => delta.function.arguments ?? "").join("")), AGENT_ARGUMENTS);
  assert.equal(deltas.filter((delta) => delta.id).length, 1);
});

check("run_tools", async () => {
  const asked = [];
  const weather = ({ city }) => {
    asked.push({ city });
    return AGENT_RESULT;
  };
  const runner = chat.runTools({
    model: "agent",
    messages: user(AGENT_QUESTION),
    tools: [{ type: "function", function: { ...WEATHER_TOOL.function, function: weather, parse: JSON.parse } }],
  });
  assert.equal(await runner.finalContent(), AGENT_ANSWER);
  assert.deepEqual(asked, [AGENT_ARGUMENTS]);
});

check("schema", async () => {
  const answer = await chat.parse({ model: "chat", messages: user("Name a colour."), response_format: COLOUR_FORM });
  const colour = answer.choices[0].message.parsed;
  assert.ok(["red", "green", "blue"].includes(colour.name) && typeof colour.is_warm === "boolean");
});

check("embeddings", async () => {
  const input = ["A cat sleeps.", "A kitten naps."];
  const packed = await client.embeddings.create({ model: "minilm", input });
  const floats = await client.embeddings.create({ model: "minilm", input, encoding_format: "float" });
  assert.deepEqual(floats.data.map((item) => item.embedding.length), [384, 384]);
  for (const [row, item] of floats.data.entries()) {
    const other = packed.data[row].embedding;
    assert.ok(item.embedding.every((value, at) => Math.abs(value - other[at]) < 1e-3));
  }
});

check("responses", async () => {
  const answer = await client.responses.create({ model: "echo", input: "one two" });
  assert.deepEqual([answer.status, answer.output_text], ["completed", "<one two>"]);
  const stream = client.responses.stream({ model: "echo", input: "one two" });
  let said = "";
  stream.on("response.output_text.delta", (event) => (said += event.delta));
  const final = await stream.finalResponse();
  assert.deepEqual([said, final.output.at(-1).content[0].text], ["<one two>", "<one two>"]);
  const tool = { type: "function", name: "get_weather", parameters: WEATHER_SCHEMA, strict: true };
  const called = await client.responses.create({ model: "agent", input: AGENT_QUESTION, tools: [tool] });
  const call = called.output.find((item) => item.type === "function_call");
  assert.deepEqual(JSON.parse(call.arguments), AGENT_ARGUMENTS);
  const input = [
    ...user(AGENT_QUESTION),
    ...called.output,
    { type: "function_call_output", call_id: call.call_id, output: AGENT_RESULT },
  ];
  assert.equal((await client.responses.create({ model: "agent", input, tools: [tool] })).output_text, AGENT_ANSWER);
});

check("cancel", async () => {
  const request = { model: "teller", messages: user("Tell a story."), stream: true };
  const { data: stream, response } = await chat.create(request).withResponse();
  for await (const part of stream) if (part.choices[0]?.delta.content) break;
  stream.controller.abort();
  assert.equal(await stateAtEnd(response.headers.get("x-artel-task")), "cancelled");
});

check("idempotency", async () => {
  const headers = { "Idempotency-Key": crypto.randomUUID() };
  const ask = (content) => chat.create({ model: "echo", messages: user(content) }, { headers }).withResponse();
  const [first, again] = [await ask("one"), await ask("one")];
  assert.equal(first.response.headers.get("x-artel-task"), again.response.headers.get("x-artel-task"));
  await assert.rejects(ask("two"), OpenAI.ConflictError);
});

check("errors", async () => {
  await assert.rejects(chat.create({ model: "no-such-model", messages: user("hello") }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.deepEqual([error.code, error.param], ["model_not_found", "model"]);
    return true;
  });
  await assert.rejects(chat.create({ model: "echo", messages: user("hello"), temperature: "hot" }), (error) => {
    assert.deepEqual([error.status, error.param], [400, "temperature"]);
    return true;
  });
  const stranger = new OpenAI({ baseURL: BASE_URL, apiKey: "artel_wrong", maxRetries: 0 });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
});

check("limit", async () => {
  const limited = new OpenAI({ baseURL: BASE_URL, apiKey: LIMITED_API_KEY, maxRetries: 0 });
  const ask = async () => {
    for (let n = 0; n < 3; n += 1) await limited.chat.completions.create({ model: "echo", messages: user("hello") });
  };
  await assert.rejects(ask(), (error) => {
    assert.ok(error instanceof OpenAI.RateLimitError);
    assert.ok(Number(error.headers.get("retry-after")) >= 1);
    return true;
  });
});

await main();
