# ANCHOR: qdrant
import os

from langchain_openai import OpenAIEmbeddings
from langchain_qdrant import QdrantVectorStore

embeddings = OpenAIEmbeddings(
    model="minilm",
    base_url="http://127.0.0.1:7430/v1",
    api_key=os.environ["ARTEL_TOKEN"],
    check_embedding_ctx_length=False,
)
store = QdrantVectorStore.from_existing_collection(
    "handbook", embeddings, host="127.0.0.1", grpc_port=6334, prefer_grpc=True
)
for document in store.similarity_search("Who opens the workshop?", k=3):
    print(document.metadata["source"], document.metadata["lines"], document.page_content)
# ANCHOR_END: qdrant
