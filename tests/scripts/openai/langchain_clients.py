"""LangChain and LangGraph against a daemon; see `checks.py`."""
import os
from typing import Literal

import openai
from checks import (
    AGENT_ANSWER,
    AGENT_ARGUMENTS,
    AGENT_QUESTION,
    AGENT_RESULT,
    API_KEY,
    BASE_URL,
    check,
    equal,
    expect,
    main,
    refused,
    state_at_end,
)
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langgraph.prebuilt import create_react_agent
from pydantic import BaseModel

TEXTS = [
    "A cat sleeps on the sofa.",
    "The bank raised its interest rates.",
    "Apple trees are pruned in winter.",
]


class Colour(BaseModel):
    """A colour."""

    name: Literal["red", "green", "blue"]
    is_warm: bool


@tool
def get_weather(city: Literal["Oslo", "Lima"]) -> str:
    """Tells the weather of a city."""
    equal({"city": city}, AGENT_ARGUMENTS)
    return AGENT_RESULT


def model(name, **options):
    return ChatOpenAI(model=name, base_url=BASE_URL, api_key=API_KEY, max_retries=0, timeout=120, **options)


@check
def invoke():
    answer = model("chat").invoke([SystemMessage("You speak briefly."), HumanMessage("Say hello.")])
    expect(isinstance(answer, AIMessage) and answer.text.strip(), answer)
    usage = answer.usage_metadata
    expect(usage["input_tokens"] > 0 and usage["output_tokens"] > 0, usage)
    expect(answer.response_metadata["finish_reason"] in ("stop", "length"), answer.response_metadata)
    equal(model("echo").invoke("one two").text, "<one two>")
    equal(model("chain").invoke("hello").text, "<<hello>>")


@check
def stream():
    parts = list(model("echo", stream_usage=True).stream("one two three"))
    equal("".join(part.text for part in parts), "<one two three>")
    expect(len(parts) > 3, parts)
    whole = parts[0]
    for part in parts[1:]:
        whole += part
    expect(whole.usage_metadata["output_tokens"] > 0, whole)
    equal(whole.response_metadata["finish_reason"], "stop")


@check
def a_chain_and_a_batch():
    prompt = ChatPromptTemplate.from_messages([("system", "You repeat."), ("human", "{word}")])
    chain = prompt | model("echo") | StrOutputParser()
    equal(chain.batch([{"word": word} for word in ("one", "two", "three")]), ["<one>", "<two>", "<three>"])


@check
def options():
    answer = model("chat", temperature=1.0, seed=7, max_tokens=4, logprobs=True, top_logprobs=1).invoke("Say hello.")
    expect(1 <= len(answer.response_metadata["logprobs"]["content"]) <= 4, answer.response_metadata)
    equal(model("echo", stop=["blue"]).invoke("red green blue").text.strip(), "<red green")


@check
def bind_tools():
    asked = model("agent").bind_tools([get_weather])
    messages = [HumanMessage(AGENT_QUESTION)]
    answer = asked.invoke(messages)
    [call] = answer.tool_calls
    equal((call["name"], call["args"], answer.invalid_tool_calls), ("get_weather", AGENT_ARGUMENTS, []))
    messages += [answer, get_weather.invoke(call)]
    expect(isinstance(messages[-1], ToolMessage), messages[-1])
    equal(asked.invoke(messages).text, AGENT_ANSWER)


@check
def bind_tools_of_the_model():
    asked = model("chat").bind_tools([get_weather], tool_choice="get_weather")
    [call] = asked.invoke("How is the weather?").tool_calls
    expect(call["name"] == "get_weather" and call["args"]["city"] in ("Oslo", "Lima"), call)
    required = model("chat").bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False)
    equal([call["name"] for call in required.invoke("How is the weather?").tool_calls], ["get_weather"])


@check
def tools_in_a_stream():
    parts = list(model("agent").bind_tools([get_weather]).stream(AGENT_QUESTION))
    whole = parts[0]
    for part in parts[1:]:
        whole += part
    equal([(call["name"], call["args"]) for call in whole.tool_calls], [("get_weather", AGENT_ARGUMENTS)])
    expect(sum(bool(part.tool_call_chunks) for part in parts) > 1, parts)


@check
def with_structured_output():
    for method in ("json_schema", "function_calling"):
        colour = model("chat").with_structured_output(Colour, method=method).invoke("Name a colour.")
        expect(isinstance(colour, Colour), method, colour)
    raw = model("chat").with_structured_output(Colour, include_raw=True).invoke("Name a colour.")
    expect(isinstance(raw["parsed"], Colour) and raw["parsing_error"] is None, raw)
    loose = model("object").with_structured_output(None, method="json_mode").invoke("Hello")
    equal(loose, {"city": "Oslo"})


@check
def responses():
    asked = model("agent", use_responses_api=True).bind_tools([get_weather])
    messages = [HumanMessage(AGENT_QUESTION)]
    answer = asked.invoke(messages)
    equal([(call["name"], call["args"]) for call in answer.tool_calls], [("get_weather", AGENT_ARGUMENTS)])
    messages += [answer, get_weather.invoke(answer.tool_calls[0])]
    answer = asked.invoke(messages)
    equal(answer.text, AGENT_ANSWER)
    # The answer, whose content has ids of its items, is a part of the next request.
    equal(model("echo", use_responses_api=True).invoke([*messages, answer, HumanMessage("three")]).text, "<three>")
    equal("".join(part.text for part in model("echo", use_responses_api=True).stream("one two")), "<one two>")


@check
def an_agent_of_langgraph():
    agent = create_react_agent(model("agent"), [get_weather])
    messages = agent.invoke({"messages": [HumanMessage(AGENT_QUESTION)]})["messages"]
    equal([message.type for message in messages], ["human", "ai", "tool", "ai"])
    equal((messages[2].content, messages[3].text), (AGENT_RESULT, AGENT_ANSWER))


@check
def an_agent_of_langchain():
    agent = create_agent(model("agent"), tools=[get_weather], system_prompt="You use tools.")
    question = {"messages": [{"role": "user", "content": AGENT_QUESTION}]}
    texts = [part.text for part, _ in agent.stream(question, stream_mode="messages") if part.type == "AIMessageChunk"]
    equal("".join(texts), AGENT_ANSWER)
    expect(len(texts) > 3, "the answer is streamed")
    typed = create_agent(model("chat"), tools=[], response_format=Colour)
    state = typed.invoke({"messages": [{"role": "user", "content": "Name a colour."}]})
    expect(isinstance(state["structured_response"], Colour), state)


@check
def embeddings_and_a_retriever():
    # The tokens of the package's own tokenizer mean nothing to another model: texts are sent as they are.
    embeddings = OpenAIEmbeddings(
        model="minilm", base_url=BASE_URL, api_key=API_KEY, check_embedding_ctx_length=False, max_retries=0
    )
    equal(len(embeddings.embed_query("a cat")), 384)
    store = InMemoryVectorStore.from_texts(TEXTS, embeddings)
    for question, text in (("Where is the kitten?", TEXTS[0]), ("How do I look after fruit trees?", TEXTS[2])):
        equal([document.page_content for document in store.similarity_search(question, k=1)], [text])
    found = store.as_retriever(search_kwargs={"k": 2}).invoke("money and loans")
    equal((len(found), found[0].page_content), (2, TEXTS[1]))


@check
def cancel():
    parts = model("teller", include_response_headers=True).stream("Tell a story.")
    task = None
    for part in parts:
        task = task or part.response_metadata.get("headers", {}).get("x-artel-task")
        if task and part.text:
            break
    parts.close()
    expect(task, "the headers have the task")
    equal(state_at_end(task), "cancelled")


@check
def errors():
    unknown = refused(openai.NotFoundError, lambda: model("no-such-model").invoke("hello"))
    expect("no-such-model" in unknown.message, unknown.message)
    tools = refused(openai.BadRequestError, lambda: model("closed").bind_tools([get_weather]).invoke("hello"))
    expect("tools" in tools.message, tools.message)


@check
def limit():
    limited = ChatOpenAI(model="echo", base_url=BASE_URL, api_key=os.environ["LIMITED_API_KEY"], max_retries=0)
    refusal = refused(openai.RateLimitError, lambda: [limited.invoke("hello") for _ in range(3)])
    expect(int(refusal.response.headers["retry-after"]) >= 1, dict(refusal.response.headers))


if __name__ == "__main__":
    main()
