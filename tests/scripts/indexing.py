"""How fast files are indexed: by the daemon, and by LangChain with the same embedding model of the same llama.cpp, in turn.

python indexing.py ARTEL MODELS [--files N] [--rounds N]

The texts are paragraphs of this project's book, each in a file of its own and less than a passage, so that both have the same ones.
The daemon is given a directory of them while it runs: its time is that from the directory's appearance to the end of its index, which
is on disk and also has the words of the texts. LangChain reads the same files, has OpenAI's client embed them by the `/v1/embeddings`
of such a daemon, and keeps the vectors in its store in memory, which does no more than that. The model is loaded before. A round
is one of each, in new processes. Prints the passages per second of each.
"""
import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import OpenAIEmbeddings

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
EMBEDDING = "minilm"
PARAGRAPH_CHARS = range(150, 450)
# Each look is a process, which takes time from what is measured.
POLL_SECONDS = 1.0


def paragraphs(count):
    """So many texts of the book, all different: the same paragraph comes again under another number."""
    pages = sorted((REPOSITORY / "docs/book/src").rglob("*.md"))
    parts = [part.strip() for page in pages for part in page.read_text().split("\n\n")]
    parts = [part for part in parts if len(part) in PARAGRAPH_CHARS]
    return [f"Note {at}. {parts[at % len(parts)]}" for at in range(count)]


class Daemon:
    def __init__(self, program, models, directory):
        self.program, self.directory = program, directory
        catalog = directory / "catalog"
        (catalog / "notes").mkdir(parents=True)
        (catalog / "notes.yaml").write_text(f"knowledge: notes\nsources: [notes]\nembedding: {EMBEDDING}\nchunk: {{tokens: 512, overlap: 0}}\n")
        arguments = [program, "serve", "--json", "--listen", "127.0.0.1:0", "--data", directory / "data"]
        arguments += ["--catalog", catalog, "--models", models]
        log = (directory / "log").open("w")
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=log, text=True)
        self.address = json.loads(self.process.stdout.readline())["listening"]

    def verb(self, *arguments):
        environment = os.environ | {"ARTEL_ADDRESS": self.address, "ARTEL_DATA": str(self.directory / "data")}
        command = [self.program, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout

    def status(self):
        return json.loads(self.verb("knowledge", "status", "notes", "--json").splitlines()[0])

    def embeddings(self):
        token = (self.directory / "data/token").read_text().strip()
        return OpenAIEmbeddings(
            model=EMBEDDING, base_url=f"http://{self.address}/v1", api_key=token, check_embedding_ctx_length=False, timeout=600
        )


@contextlib.contextmanager
def daemon(program, models):
    with tempfile.TemporaryDirectory() as directory:
        running = Daemon(program, models, pathlib.Path(directory))
        try:
            running.embeddings().embed_query("The model is loaded.")
            yield running
        finally:
            running.process.terminate()
            running.process.wait()


def write(texts, directory):
    directory.mkdir()
    for at, text in enumerate(texts):
        (directory / f"{at}.txt").write_text(text)


def by_daemon(program, models, texts):
    with daemon(program, models) as running:
        new = running.directory / "new"
        write(texts, new)
        started = time.monotonic()
        new.rename(running.directory / "catalog/notes/new")
        while True:
            status = running.status()
            if int(status["sources"]) == len(texts) and int(status["pending"]) == 0:
                break
            time.sleep(POLL_SECONDS)
        seconds = time.monotonic() - started
        if int(status["passages"]) != len(texts):
            raise SystemExit(f"{len(texts)} files are {status['passages']} passages: the texts are too long")
        return seconds


def by_langchain(program, models, texts):
    with daemon(program, models) as running:
        directory, embeddings = running.directory / "new", running.embeddings()
        write(texts, directory)
        started = time.monotonic()
        files = sorted(directory.iterdir())
        documents = [Document(file.read_text(), metadata={"source": str(file)}) for file in files]
        store = InMemoryVectorStore(embeddings)
        store.add_documents(documents)
        return time.monotonic() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artel", type=pathlib.Path)
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("--files", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    texts = paragraphs(options.files)
    rates = {"daemon": [], "LangChain": []}
    for at in range(options.rounds):
        for name, indexed in [("daemon", by_daemon), ("LangChain", by_langchain)][:: 1 if at % 2 == 0 else -1]:
            rates[name].append(options.files / indexed(options.artel, options.models, texts))
            print(f"{name}: {rates[name][-1]:.1f} passages/s of {options.files}", flush=True)
    ratios = [own / other for own, other in zip(*rates.values())]
    print(f"daemon / LangChain: {statistics.median(ratios):.2f} (median of {len(ratios)} rounds, {min(ratios):.2f} to {max(ratios):.2f})")


main()
