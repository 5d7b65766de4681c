# ANCHOR: chat
import os

# Without this, LiteLLM fetches a table of prices at its start.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

daemon = {"api_base": "http://127.0.0.1:7430/v1", "api_key": os.environ["ARTEL_TOKEN"]}
messages = [{"role": "user", "content": "What is a GGUF file?"}]

answer = litellm.completion(model="openai/chat", messages=messages, **daemon)
print(answer.choices[0].message.content)
for part in litellm.completion(model="openai/chat", messages=messages, stream=True, **daemon):
    print(part.choices[0].delta.content or "", end="", flush=True)
print()
# ANCHOR_END: chat

# ANCHOR: embeddings
vectors = litellm.embedding(model="openai/minilm", input=["A cat sleeps on the sofa."], **daemon)
print(len(vectors.data[0]["embedding"]))
# ANCHOR_END: embeddings
