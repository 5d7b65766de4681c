# ANCHOR: chat
import os

from langchain_openai import ChatOpenAI

model = ChatOpenAI(
    model="chat", base_url="http://127.0.0.1:7430/v1", api_key=os.environ["ARTEL_TOKEN"]
)
print(model.invoke("What is a GGUF file?").text)
for part in model.stream("Name three rivers."):
    print(part.text, end="", flush=True)
print()
# ANCHOR_END: chat

# ANCHOR: tools
from typing import Annotated

from langchain.agents import create_agent
from langchain.agents.middleware import ModelCallLimitMiddleware
from langchain_core.tools import tool
from pydantic import Field


@tool
def get_weather(city: Annotated[str, Field(max_length=40)]) -> str:
    """Tells the weather of a city."""
    return f"sunny in {city}, 18 degrees"


print(model.bind_tools([get_weather], tool_choice="any").invoke("Weather in Oslo?").tool_calls)

limit = ModelCallLimitMiddleware(run_limit=4, exit_behavior="end")
agent = create_agent(model, tools=[get_weather], middleware=[limit])
state = agent.invoke({"messages": [{"role": "user", "content": "How is the weather in Oslo?"}]})
print(state["messages"][-1].text)
# ANCHOR_END: tools

# ANCHOR: structured
from typing import Literal

from pydantic import BaseModel


class Ticket(BaseModel):
    """A message of a customer."""

    kind: Literal["question", "complaint", "order"]
    is_urgent: bool


print(model.with_structured_output(Ticket).invoke("My lamp came broken, and I need it today."))
# ANCHOR_END: structured

# ANCHOR: embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import OpenAIEmbeddings

embeddings = OpenAIEmbeddings(
    model="minilm",
    base_url="http://127.0.0.1:7430/v1",
    api_key=os.environ["ARTEL_TOKEN"],
    check_embedding_ctx_length=False,
)
store = InMemoryVectorStore.from_texts(
    ["A cat sleeps on the sofa.", "Interest rates rose again."], embeddings
)
print(store.as_retriever(search_kwargs={"k": 1}).invoke("Where is the kitten?"))
# ANCHOR_END: embeddings

# ANCHOR: retriever
import httpx
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever


class ArtelRetriever(BaseRetriever):
    """The passages of a knowledge that answer a question, the best first."""

    knowledge: str
    top: int = 4

    def _get_relevant_documents(self, query, *, run_manager):
        answer = httpx.post(
            "http://127.0.0.1:7430/v1/search",
            headers={"Authorization": f"Bearer {os.environ['ARTEL_TOKEN']}"},
            json={"knowledge": self.knowledge, "query": query, "top": self.top},
            timeout=60,
        )
        answer.raise_for_status()
        passages = answer.json()["data"]
        return [Document(page_content=passage.pop("text"), metadata=passage) for passage in passages]


for document in ArtelRetriever(knowledge="notes").invoke("When do parcels leave?"):
    print(document.metadata["source"], document.metadata["lines"], document.page_content)
# ANCHOR_END: retriever
