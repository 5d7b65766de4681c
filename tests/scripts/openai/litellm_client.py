"""LiteLLM against a daemon; see `checks.py`."""
import json
import os
import socket
from typing import Literal

# It asks for a table of prices otherwise.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

# The names that the process looks up, from the import on.
looked_up = set()
_getaddrinfo = socket.getaddrinfo


def _record(host, *rest, **options):
    looked_up.add(host.decode() if isinstance(host, bytes) else host)
    return _getaddrinfo(host, *rest, **options)


socket.getaddrinfo = _record

import litellm
from checks import (
    AGENT_ANSWER,
    AGENT_ARGUMENTS,
    AGENT_QUESTION,
    AGENT_RESULT,
    API_KEY,
    BASE_URL,
    WEATHER_TOOL,
    check,
    equal,
    expect,
    main,
    refused,
    state_at_end,
)
from pydantic import BaseModel

litellm.telemetry = False
litellm.suppress_debug_info = True

OPTIONS = {"api_base": BASE_URL, "api_key": API_KEY, "max_retries": 0, "timeout": 120}


class Colour(BaseModel):
    """A colour."""

    name: Literal["red", "green", "blue"]
    is_warm: bool


def user(text):
    return [{"role": "user", "content": text}]


def complete(model, messages, **options):
    return litellm.completion(model=f"openai/{model}", messages=messages, **{**OPTIONS, **options})


@check
def completion():
    answer = complete("chat", user("Say hello."), temperature=0.5, seed=3, max_tokens=8)
    expect(answer.choices[0].message.content.strip(), answer)
    equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)
    equal(complete("echo", user("one two")).choices[0].message.content, "<one two>")
    equal(complete("chain", user("hello")).choices[0].message.content, "<<hello>>")


@check
def stream():
    parts = list(complete("echo", user("one two three"), stream=True, stream_options={"include_usage": True}))
    equal("".join(part.choices[0].delta.content or "" for part in parts if part.choices), "<one two three>")
    whole = litellm.stream_chunk_builder(parts, messages=user("one two three"))
    equal((whole.choices[0].message.content, whole.choices[0].finish_reason), ("<one two three>", "stop"))
    expect(whole.usage.completion_tokens > 0, whole.usage)


@check
def tools():
    messages = user(AGENT_QUESTION)
    message = complete("agent", messages, tools=[WEATHER_TOOL]).choices[0].message
    [call] = message.tool_calls
    equal((call.function.name, json.loads(call.function.arguments)), ("get_weather", AGENT_ARGUMENTS))
    messages += [message, {"role": "tool", "tool_call_id": call.id, "content": AGENT_RESULT}]
    equal(complete("agent", messages, tools=[WEATHER_TOOL]).choices[0].message.content, AGENT_ANSWER)
    parts = list(complete("agent", user(AGENT_QUESTION), tools=[WEATHER_TOOL], stream=True))
    whole = litellm.stream_chunk_builder(parts).choices[0]
    equal(json.loads(whole.message.tool_calls[0].function.arguments), AGENT_ARGUMENTS)
    equal(whole.finish_reason, "tool_calls")
    choice = complete("chat", user("How is the weather?"), tools=[WEATHER_TOOL], tool_choice="required").choices[0]
    equal(choice.message.tool_calls[0].function.name, "get_weather")


@check
def schema():
    answer = complete("chat", user("Name a colour."), response_format=Colour)
    Colour.model_validate_json(answer.choices[0].message.content)


@check
def embedding():
    answer = litellm.embedding(model="openai/minilm", input=["one", "two"], **OPTIONS)
    equal([len(item["embedding"]) for item in answer.data], [384, 384])
    expect(answer.usage.prompt_tokens > 0, answer.usage)


@check
def text_completion():
    answer = litellm.text_completion(model="text-completion-openai/echo", prompt="one", **OPTIONS)
    equal(answer.choices[0].text, "<one>")


@check
def responses():
    answer = litellm.responses(model="openai/echo", input="one two", **OPTIONS)
    equal((answer.status, answer.output[-1].content[0].text), ("completed", "<one two>"))


@check
def cancel():
    parts = complete("teller", user("Tell a story."), stream=True)
    part = next(part for part in parts if part.choices and part.choices[0].delta.content)
    task = part.id.removeprefix("chatcmpl-")
    parts.completion_stream.response.close()
    equal(state_at_end(task), "cancelled")


@check
def errors():
    unknown = refused(litellm.NotFoundError, lambda: complete("no-such-model", user("hello")))
    expect("no-such-model" in str(unknown), unknown)
    refused(litellm.BadRequestError, lambda: complete("closed", user("hello"), tools=[WEATHER_TOOL]))
    refused(litellm.AuthenticationError, lambda: complete("echo", user("hello"), api_key="artel_wrong"))


@check
def limit():
    def calls():
        for _ in range(3):
            complete("echo", user("hello"), api_key=os.environ["LIMITED_API_KEY"])

    refused(litellm.RateLimitError, calls)


@check
def nothing_but_the_daemon_was_called():
    equal(looked_up - {"127.0.0.1", "localhost", "::1"}, set())


if __name__ == "__main__":
    main()
