"""The package `openai` for Python against a daemon; see `checks.py`."""
import asyncio
import json
import math
import os
import uuid
from typing import Literal

import openai
import pydantic
from checks import (
    AGENT_ANSWER,
    AGENT_ARGUMENTS,
    AGENT_QUESTION,
    AGENT_RESULT,
    API_KEY,
    BASE_URL,
    WEATHER_SCHEMA,
    WEATHER_TOOL,
    check,
    end_of_task,
    equal,
    expect,
    main,
    refused,
    state_at_end,
)

# No retries: the first answer is what counts.
client = openai.OpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0, timeout=120)
chat = client.chat.completions

QUESTION = [{"role": "user", "content": "Say hello to a friend."}]


class Colour(pydantic.BaseModel):
    """What a model is held to."""

    name: Literal["red", "green", "blue"]
    is_warm: bool


def user(text):
    return [{"role": "user", "content": text}]


def task_of(response):
    """The id of the task behind an answer."""
    task = response.headers.get("x-artel-task")
    expect(task, dict(response.headers))
    return task


def chunks(**request):
    """The chunks of a stream, read to its end."""
    return list(chat.create(stream=True, **request))


def joined(parts):
    return "".join(part.choices[0].delta.content or "" for part in parts if part.choices)


@check
def models():
    listed = {model.id: model for model in client.models.list()}
    for name in ("auto", "chat", "echo", "chain", "minilm"):
        expect(name in listed, sorted(listed))
        equal((listed[name].object, listed[name].owned_by), ("model", "artel"))
    one = client.models.retrieve("chat")
    equal((one.id, one.model_extra["max_model_len"], one.model_extra["meta"]["n_ctx"]), ("chat", 2048, 2048))
    refusal = refused(openai.NotFoundError, lambda: client.models.retrieve("no-such-model"))
    equal(refusal.code, "model_not_found")


@check
def text():
    raw = chat.with_raw_response.create(model="chat", messages=QUESTION)
    task, answer = task_of(raw), raw.parse()
    equal((answer.id, answer.object, answer.model), (f"chatcmpl-{task}", "chat.completion", "chat"))
    expect(answer.system_fingerprint.startswith("fp_"), answer.system_fingerprint)
    equal([choice.index for choice in answer.choices], [0])
    message = answer.choices[0].message
    equal((message.role, message.refusal, message.tool_calls), ("assistant", None, None))
    expect(message.content.strip(), message.content)
    expect(answer.choices[0].finish_reason in ("stop", "length"), answer.choices[0].finish_reason)
    usage = answer.usage
    expect(usage.prompt_tokens > 0 and usage.completion_tokens > 0, usage)
    equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
    equal(state_at_end(task), "completed")


@check
def a_graph_and_the_default_graph_answer():
    # Each of the two nodes puts the text between marks.
    for model in ("chain", "auto"):
        answer = chat.create(model=model, messages=user("hello"))
        equal((answer.model, answer.choices[0].message.content), (model, "<<hello>>"))
        parts = chunks(model=model, messages=user("hello"))
        equal(joined(parts), "<<hello>>")


@check
def steps_of_a_graph_as_reasoning():
    parts = chunks(model="chain", messages=user("hello"), extra_headers={"x-artel-events": "reasoning"})
    deltas = [part.choices[0].delta.model_extra or {} for part in parts if part.choices]
    steps = "".join(delta.get("reasoning_content") or "" for delta in deltas)
    expect("first" in steps and "second" in steps, steps)
    equal(joined(parts), "<<hello>>")


@check
def stream():
    parts = chunks(model="echo", messages=user("one two three"))
    equal(joined(parts), "<one two three>")
    equal([part.choices[0].delta.role for part in parts if part.choices].count("assistant"), 1)
    equal(parts[0].choices[0].delta.role, "assistant")
    reasons = [choice.finish_reason for part in parts for choice in part.choices]
    equal((set(reasons[:-1]), reasons[-1]), ({None}, "stop"))
    equal(len({(part.id, part.created, part.object) for part in parts}), 1)
    expect(all(part.usage is None for part in parts), "usage was not asked for")


@check
def stream_of_the_model():
    parts = chunks(model="chat", messages=QUESTION, stream_options={"include_usage": True})
    expect(joined(parts).strip(), parts)
    expect(len(parts) > 3, len(parts))
    usage, others = parts[-1], parts[:-1]
    equal(usage.choices, [])
    expect(usage.usage.completion_tokens > 0 and usage.usage.prompt_tokens > 0, usage.usage)
    expect(all(part.usage is None and part.choices for part in others), "one chunk has the usage")


@check
def stream_helper():
    with chat.stream(model="chat", messages=QUESTION) as events:
        deltas = "".join(event.delta for event in events if event.type == "content.delta")
        final = events.get_final_completion()
    equal(final.choices[0].message.content, deltas)
    expect(deltas.strip(), deltas)


@check
def history_and_system_text():
    messages = [
        {"role": "system", "content": "You speak briefly."},
        {"role": "developer", "content": "Be friendly."},
        *QUESTION,
    ]
    first = chat.create(model="chat", messages=messages)
    said = first.choices[0].message.content
    messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "Say it once more."}]
    second = chat.create(model="chat", messages=messages)
    expect(second.usage.prompt_tokens > first.usage.prompt_tokens, first.usage, second.usage)
    expect(second.usage.prompt_tokens_details.cached_tokens > 0, second.usage)
    expect(second.choices[0].message.content.strip(), second)


@check
def content_parts():
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    answer = chat.create(model="echo", messages=[{"role": "user", "content": parts}])
    # The scripted model repeats the last line of what it is told.
    equal(answer.choices[0].message.content, "<two>")
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    call = lambda: chat.create(model="echo", messages=[{"role": "user", "content": [*parts, image]}])
    refusal = refused(openai.BadRequestError, call)
    expect("image" in refusal.message and "messages" in (refusal.param or ""), refusal.message, refusal.param)


@check
def tools():
    request = {"model": "chat", "tools": [WEATHER_TOOL]}
    named = {"type": "function", "function": {"name": "get_weather"}}
    messages = user("How is the weather in Oslo?")
    answer = chat.create(messages=messages, tool_choice=named, **request).choices[0]
    equal((answer.finish_reason, answer.message.content), ("tool_calls", None))
    [call] = answer.message.tool_calls
    equal((call.type, call.function.name), ("function", "get_weather"))
    arguments = json.loads(call.function.arguments)
    expect(arguments.keys() == {"city"} and arguments["city"] in ("Oslo", "Lima"), arguments)

    # The result goes back, and the model answers with text.
    messages += [answer.message, {"role": "tool", "tool_call_id": call.id, "content": AGENT_RESULT}]
    answer = chat.create(messages=messages, tool_choice="none", **request).choices[0]
    expect(answer.message.tool_calls is None and answer.message.content.strip(), answer)
    expect(answer.finish_reason in ("stop", "length"), answer.finish_reason)

    # A small model would call again and again.
    required = chat.create(
        messages=messages[:1], tool_choice="required", parallel_tool_calls=False, **request
    ).choices[0]
    equal(required.finish_reason, "tool_calls")


@check
def tools_in_a_stream():
    parts = chunks(model="agent", messages=user(AGENT_QUESTION), tools=[WEATHER_TOOL])
    deltas = [call for part in parts for choice in part.choices for call in choice.delta.tool_calls or []]
    expect(deltas, parts)
    equal({delta.index for delta in deltas}, {0})
    first, others = deltas[0], deltas[1:]
    equal((first.type, first.function.name), ("function", "get_weather"))
    expect(first.id and all(other.id is None and other.function.name is None for other in others), deltas)
    arguments = "".join(delta.function.arguments or "" for delta in deltas)
    equal(json.loads(arguments), AGENT_ARGUMENTS)
    equal(parts[-1].choices[0].finish_reason, "tool_calls")
    equal(joined(parts), "")


@check
def an_agent_of_ones_own():
    messages = user(AGENT_QUESTION)
    called = []
    for _ in range(4):
        message = chat.create(model="agent", messages=messages, tools=[WEATHER_TOOL]).choices[0].message
        messages.append(message)
        if not message.tool_calls:
            break
        for call in message.tool_calls:
            called.append(json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": AGENT_RESULT})
    equal((called, messages[-1].content), ([AGENT_ARGUMENTS], AGENT_ANSWER))


@check
def a_role_without_tools():
    call = lambda: chat.create(model="closed", messages=user("hello"), tools=[WEATHER_TOOL])
    refusal = refused(openai.BadRequestError, call)
    expect("tools" in refusal.message and (refusal.param or "").startswith("tools"), refusal.message, refusal.param)


@check
def schema():
    form = {"name": "colour", "strict": True, "schema": Colour.model_json_schema()}
    answer = chat.create(
        model="chat",
        messages=user("Name a colour."),
        response_format={"type": "json_schema", "json_schema": form},
    )
    Colour.model_validate_json(answer.choices[0].message.content)
    equal(answer.choices[0].finish_reason, "stop")


@check
def schema_by_parse():
    answer = chat.parse(model="chat", messages=user("Name a colour."), response_format=Colour)
    parsed = answer.choices[0].message.parsed
    expect(isinstance(parsed, Colour), answer)
    equal(json.loads(answer.choices[0].message.content), parsed.model_dump())


@check
def any_object():
    answer = chat.create(model="object", messages=user("Hello"), response_format={"type": "json_object"})
    equal(json.loads(answer.choices[0].message.content), {"city": "Oslo"})


@check
def a_schema_of_the_role():
    answer = chat.create(model="judge", messages=user("Is one and one two?"))
    expect(json.loads(answer.choices[0].message.content)["verdict"] in ("ship", "revise"), answer)
    form = {"name": "colour", "schema": Colour.model_json_schema()}
    asked = {"type": "json_schema", "json_schema": form}
    call = lambda: chat.create(model="judge", messages=user("Name a colour."), response_format=asked)
    refusal = refused(openai.BadRequestError, call)
    expect((refusal.param or "").startswith("response_format"), refusal.param, refusal.message)


@check
def several_choices():
    request = {"model": "chat", "messages": QUESTION, "n": 3, "temperature": 1.2, "seed": 5, "max_tokens": 12}
    answer = chat.create(**request)
    equal([choice.index for choice in answer.choices], [0, 1, 2])
    texts = [choice.message.content for choice in answer.choices]
    expect(all(text.strip() for text in texts) and len(set(texts)) > 1, texts)
    parts = chunks(**request)
    equal({choice.index for part in parts for choice in part.choices}, {0, 1, 2})
    ended = [choice.index for part in parts for choice in part.choices if choice.finish_reason]
    equal(sorted(ended), [0, 1, 2])


@check
def stop():
    request = {"model": "echo", "messages": user("red green blue"), "stop": ["blue", "violet"]}
    answer = chat.create(**request).choices[0]
    equal((answer.message.content.strip(), answer.finish_reason), ("<red green", "stop"))
    equal(joined(chunks(**request)).strip(), "<red green")


@check
def logprobs():
    request = {"model": "chat", "messages": QUESTION, "logprobs": True, "top_logprobs": 2, "max_tokens": 12}
    choice = chat.create(**request).choices[0]
    tokens = choice.logprobs.content
    equal("".join(token.token for token in tokens).strip(), choice.message.content.strip())
    equal(b"".join(bytes(token.bytes) for token in tokens).decode().strip(), choice.message.content.strip())
    expect(all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens), tokens)
    # At a temperature of 0, each token is the likeliest one.
    expect(all(token.token == token.top_logprobs[0].token for token in tokens), tokens)
    streamed = [item for part in chunks(**request) for c in part.choices if c.logprobs for item in c.logprobs.content]
    equal("".join(item.token for item in streamed).strip(), choice.message.content.strip())


@check
def seed():
    request = {"model": "chat", "messages": QUESTION, "temperature": 1.5, "max_tokens": 16}
    texts = [chat.create(seed=seed, **request).choices[0].message.content for seed in (7, 7, 8, 2**40, -1)]
    equal(texts[0], texts[1])
    expect(len(set(texts)) > 1, texts)


@check
def what_the_role_fixes_is_told():
    raw = chat.with_raw_response.create(model="chat", messages=QUESTION, max_tokens=100_000)
    equal(raw.headers["x-artel-not-taken"], "max_tokens")
    equal(raw.parse().model_extra["artel"]["not_taken"], ["max_tokens"])
    raw = chat.with_raw_response.create(model="fixed", messages=QUESTION, temperature=1.5, max_tokens=4)
    equal(raw.headers["x-artel-not-taken"], "temperature")


@check
def errors():
    unknown = refused(openai.NotFoundError, lambda: chat.create(model="no-such-model", messages=QUESTION))
    equal((unknown.status_code, unknown.code, unknown.param), (404, "model_not_found", "model"))
    expect("no-such-model" in unknown.message, unknown.message)
    for field, value in {"temperature": "hot", "max_tokens": "many", "stop": 5, "n": 100, "tool_choice": "maybe"}.items():
        call = lambda: chat.create(model="echo", messages=QUESTION, extra_body={field: value})
        bad = refused(openai.BadRequestError, call)
        equal((bad.status_code, bad.type, bad.param), (400, "invalid_request_error", field))
        expect(field in bad.message, bad.message)
    no_chat = refused(openai.BadRequestError, lambda: chat.create(model="minilm", messages=QUESTION))
    equal(no_chat.param, "model")
    stranger = openai.OpenAI(base_url=BASE_URL, api_key="artel_wrong", max_retries=0)
    refused(openai.AuthenticationError, lambda: stranger.chat.completions.create(model="echo", messages=QUESTION))
    refused(openai.BadRequestError, lambda: chunks(model="echo", messages=[]))


@check
def unknown_fields_and_nulls_are_ignored():
    extra = {"no_such_field": {"a": 1}, "store": True, "temperature": None, "stop": None, "tools": None, "verbosity": "low"}
    answer = chat.create(model="echo", messages=user("hello"), user="someone", extra_body=extra)
    equal(answer.choices[0].message.content, "<hello>")
    # The same address with a slash behind it.
    slash = openai.OpenAI(base_url=f"{BASE_URL}/", api_key=API_KEY, max_retries=0)
    expect("data" in slash.get("/models/", cast_to=object), "the list of models")
    answer = slash.chat.completions.create(model="echo", messages=user("hello"))
    equal(answer.choices[0].message.content, "<hello>")


@check
def limit():
    limited = openai.OpenAI(base_url=BASE_URL, api_key=os.environ["LIMITED_API_KEY"], max_retries=0)

    def calls():
        for _ in range(3):
            limited.chat.completions.create(model="echo", messages=user("hello"))

    refusal = refused(openai.RateLimitError, calls)
    equal((refusal.status_code, refusal.code), (429, "rate_limit_exceeded"))
    expect(1 <= int(refusal.response.headers["retry-after"]) <= 60, dict(refusal.response.headers))


@check
def cancel():
    events = chat.create(model="teller", messages=user("Tell a story."), stream=True)
    task = task_of(events.response)
    expect(any(part.choices and part.choices[0].delta.content for part in events), "no text came")
    events.close()
    equal(state_at_end(task), "cancelled")


@check
def detach():
    events = chat.create(
        model="chat", messages=QUESTION, stream=True, extra_headers={"x-artel-detach": "true"}
    )
    task = task_of(events.response)
    next(iter(events))
    events.close()
    equal(state_at_end(task), "completed")


@check
def idempotency():
    key = {"Idempotency-Key": str(uuid.uuid4())}
    create = chat.with_raw_response.create
    request = {"model": "chat", "messages": QUESTION, "temperature": 1.5, "max_tokens": 16}
    first, again = (create(extra_headers=key, **request) for _ in range(2))
    equal(task_of(first), task_of(again))
    equal(first.parse().choices[0].message.content, again.parse().choices[0].message.content)
    other = create(**request)
    expect(task_of(other) != task_of(first), "without the key it is another task")
    # Streamed, from its first token.
    events = chat.create(stream=True, extra_headers=key, **request)
    equal((task_of(events.response), joined(list(events))), (task_of(first), first.parse().choices[0].message.content))
    changed = {**request, "messages": user("Something else.")}
    refused(openai.ConflictError, lambda: create(extra_headers=key, **changed))


@check
def labels():
    raw = chat.with_raw_response.create(model="echo", messages=user("hello"), metadata={"project": "orchard"})
    equal(end_of_task(task_of(raw))["labels"], {"project": "orchard"})


@check
def completions():
    answer = client.completions.create(model="echo", prompt="one")
    equal((answer.object, answer.choices[0].text, answer.choices[0].finish_reason), ("text_completion", "<one>", "stop"))
    both = client.completions.create(model="echo", prompt=["one", "two"])
    equal([(choice.index, choice.text) for choice in both.choices], [(0, "<one>"), (1, "<two>")])
    parts = list(client.completions.create(model="echo", prompt="one", stream=True))
    equal("".join(choice.text for part in parts for choice in part.choices), "<one>")


@check
def embeddings():
    texts = ["A cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates rose again."]
    floats = client.embeddings.create(model="minilm", input=texts, encoding_format="float")
    equal([item.index for item in floats.data], [0, 1, 2])
    expect(floats.usage.prompt_tokens > 0, floats.usage)
    vectors = [item.embedding for item in floats.data]
    equal({len(vector) for vector in vectors}, {384})
    near, far = (sum(a * b for a, b in zip(vectors[0], other)) for other in vectors[1:])
    expect(near > far + 0.2, near, far)
    # The package asks for base64 unless it is told otherwise.
    packed = client.embeddings.create(model="minilm", input=texts)
    for vector, other in zip(vectors, packed.data):
        expect(all(math.isclose(a, b, abs_tol=1e-3) for a, b in zip(vector, other.embedding)), "the vectors differ")
    text = client.embeddings.create(model="minilm", input=texts[0], encoding_format="base64")
    expect(isinstance(text.data[0].embedding, str), text.data[0])
    ids = refused(openai.BadRequestError, lambda: client.embeddings.create(model="minilm", input=[[1, 2, 3]]))
    expect("token" in ids.message and ids.param == "input", ids.message, ids.param)
    no_vectors = refused(openai.BadRequestError, lambda: client.embeddings.create(model="chat", input="hello"))
    equal(no_vectors.param, "model")


@check
def responses():
    answer = client.responses.create(model="echo", input="one two")
    equal((answer.object, answer.status, answer.output_text), ("response", "completed", "<one two>"))
    expect(answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens, answer.usage)
    real = client.responses.create(model="chat", instructions="You speak briefly.", input="Say hello.", max_output_tokens=8)
    expect(real.output_text.strip() and real.status in ("completed", "incomplete"), real)
    turns = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "<one>"},
        {"role": "user", "content": [{"type": "input_text", "text": "two"}]},
    ]
    equal(client.responses.create(model="echo", input=turns).output_text, "<two>")
    call = lambda: client.responses.create(model="echo", input="hello", previous_response_id="resp_1")
    equal(refused(openai.BadRequestError, call).param, "previous_response_id")


@check
def responses_stream():
    events = list(client.responses.create(model="echo", input="one two", stream=True))
    kinds = [event.type for event in events]
    equal(kinds[:2], ["response.created", "response.in_progress"])
    equal(kinds[-1], "response.completed")
    for kind in ("output_item.added", "content_part.added", "output_text.done", "content_part.done", "output_item.done"):
        equal(kinds.count(f"response.{kind}"), 1)
    numbers = [event.sequence_number for event in events]
    equal(numbers, list(range(len(events))))
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    equal((deltas, events[-1].response.output_text), ("<one two>", "<one two>"))
    with client.responses.stream(model="judge", input="Say hello.") as helper:
        said = "".join(event.delta for event in helper if event.type == "response.output_text.delta")
        expect(helper.get_final_response().output_text.strip() == said.strip() != "", said)


@check
def responses_tools():
    tool = {"type": "function", "name": "get_weather", "description": "Tells the weather.", "parameters": WEATHER_SCHEMA, "strict": True}
    turns = user(AGENT_QUESTION)
    answer = client.responses.create(model="agent", input=turns, tools=[tool])
    [call] = [item for item in answer.output if item.type == "function_call"]
    equal((call.name, json.loads(call.arguments)), ("get_weather", AGENT_ARGUMENTS))
    turns += [*answer.output, {"type": "function_call_output", "call_id": call.call_id, "output": AGENT_RESULT}]
    equal(client.responses.create(model="agent", input=turns, tools=[tool]).output_text, AGENT_ANSWER)
    events = list(client.responses.create(model="agent", input=user(AGENT_QUESTION), tools=[tool], stream=True))
    arguments = "".join(e.delta for e in events if e.type == "response.function_call_arguments.delta")
    equal(json.loads(arguments), AGENT_ARGUMENTS)
    [done] = [event for event in events if event.type == "response.function_call_arguments.done"]
    equal(json.loads(done.arguments), AGENT_ARGUMENTS)


@check
def responses_schema():
    answer = client.responses.parse(model="chat", input="Name a colour.", text_format=Colour)
    expect(isinstance(answer.output_parsed, Colour), answer)


@check
def responses_errors():
    unknown = refused(openai.NotFoundError, lambda: client.responses.create(model="no-such-model", input="hello"))
    equal(unknown.code, "model_not_found")
    built_in = [{"type": "web_search"}]
    call = lambda: client.responses.create(model="echo", input="hello", tools=built_in)
    expect("web_search" in refused(openai.BadRequestError, call).message, "the message names the tool")


@check
def responses_cancel():
    events = client.responses.create(model="teller", input="Tell a story.", stream=True)
    task = task_of(events.response)
    next(event for event in events if event.type == "response.output_text.delta")
    events.close()
    equal(state_at_end(task), "cancelled")


@check
def many_at_once():
    async def ask():
        several = openai.AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0)
        create = several.chat.completions.create

        async def one(n):
            text = ""
            async for part in await create(model="echo", messages=user(f"number {n}"), stream=True):
                text += part.choices[0].delta.content or "" if part.choices else ""
            return text

        async with several:
            return await asyncio.gather(*(one(n) for n in range(16)))

    equal(asyncio.run(ask()), [f"<number {n}>" for n in range(16)])


if __name__ == "__main__":
    main()
