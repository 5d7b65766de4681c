# ANCHOR: client
import os

from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:7430/v1", api_key=os.environ["ARTEL_TOKEN"])
# ANCHOR_END: client

# ANCHOR: chat
answer = client.chat.completions.create(
    model="chat",
    messages=[{"role": "user", "content": "What is a GGUF file?"}],
)
print(answer.choices[0].message.content)
# ANCHOR_END: chat

# ANCHOR: stream
for part in client.chat.completions.create(
    model="chat",
    messages=[{"role": "user", "content": "Name three rivers."}],
    stream=True,
):
    print(part.choices[0].delta.content or "", end="", flush=True)
print()
# ANCHOR_END: stream

# ANCHOR: schema
from typing import Literal

from pydantic import BaseModel


class Ticket(BaseModel):
    kind: Literal["question", "complaint", "order"]
    is_urgent: bool


answer = client.chat.completions.parse(
    model="chat",
    messages=[{"role": "user", "content": "My lamp came broken, and I need it today."}],
    response_format=Ticket,
)
print(answer.choices[0].message.parsed)
# ANCHOR_END: schema

# ANCHOR: tools
tools = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Tells the weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "maxLength": 40}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
]
messages = [{"role": "user", "content": "How is the weather in Oslo?"}]
message = client.chat.completions.create(
    model="chat", messages=messages, tools=tools, tool_choice="required"
).choices[0].message
messages.append(message)
for call in message.tool_calls:
    print(call.function.name, call.function.arguments)
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "sunny, 18 degrees"})
answer = client.chat.completions.create(model="chat", messages=messages)
print(answer.choices[0].message.content)
# ANCHOR_END: tools

# ANCHOR: task
import uuid

key = str(uuid.uuid4())
for _ in range(2):
    # The second request, such as one after a lost connection, gets the answer of the first one's task.
    answer = client.chat.completions.with_raw_response.create(
        model="chat",
        messages=[{"role": "user", "content": "Say hello."}],
        extra_headers={"Idempotency-Key": key},
    )
    print(answer.headers["x-artel-task"], answer.parse().choices[0].message.content)
# ANCHOR_END: task

# ANCHOR: embeddings
texts = ["A cat sleeps on the sofa.", "Interest rates rose again."]
vectors = client.embeddings.create(model="minilm", input=texts)
print(len(vectors.data), "vectors of", len(vectors.data[0].embedding))
# ANCHOR_END: embeddings

# ANCHOR: responses
answer = client.responses.create(model="chat", input="Say hello.")
print(answer.output_text)
# ANCHOR_END: responses
