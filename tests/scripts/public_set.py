"""The quality of a search on a public set of questions: nDCG@10 and recall@5 by words, by meaning, and by both.

python public_set.py ARTEL MODELS DIRECTORY [--embedding GGUF] [--prefixes]

DIRECTORY has a set in the form of Cranfield (`cran.all.1400`, `cran.qry`, `cranqrel`) or of BEIR (`corpus.jsonl`, `queries.jsonl`,
`qrels/test.tsv`). Each document is a file of a knowledge, and counts once, by its best passage. A document is relevant or not: grades
are not told apart. GGUF is a file in MODELS; without it, the demo's embedding model is taken. With `--prefixes`, texts have those of
E5.
"""
import argparse
import collections
import json
import math
import os
import pathlib
import random
import subprocess
import tempfile
import time
import urllib.request

MODES = ["keyword", "vector", "hybrid"]
PASSAGES, RANKED, RECALLED = 50, 10, 5
SAMPLES, SEED = 2000, 7
POLL_SECONDS = 0.5
# Cranfield's grades run from 1, a full answer, to 4; others say that a document is of no interest.
CRANFIELD_GRADES = {"1", "2", "3", "4"}


def cranfield(directory):
    def records(name):
        for record in (directory / name).read_text().split("\n.I ")[0:]:
            number, *lines = record.removeprefix(".I ").splitlines()
            fields, current = collections.defaultdict(list), None
            for line in lines:
                if line in {".T", ".A", ".B", ".W"}:
                    current = line
                else:
                    fields[current].append(line)
            yield number.strip(), {name: " ".join(text).strip() for name, text in fields.items()}

    documents = {number: f"{fields.get('.T', '')}\n\n{fields.get('.W', '')}" for number, fields in records("cran.all.1400")}
    # Judgements count the questions from 1, whatever their own numbers are.
    questions = {str(at): fields[".W"] for at, (_, fields) in enumerate(records("cran.qry"), 1)}
    relevant = collections.defaultdict(set)
    for line in (directory / "cranqrel").read_text().splitlines():
        question, document, grade = line.split()[:3]
        if grade in CRANFIELD_GRADES:
            relevant[question].add(document)
    return documents, questions, relevant


def beir(directory):
    def lines(name):
        return [json.loads(line) for line in (directory / name).read_text().splitlines()]

    documents = {line["_id"]: f"{line.get('title', '')}\n\n{line['text']}" for line in lines("corpus.jsonl")}
    questions = {line["_id"]: line["text"] for line in lines("queries.jsonl")}
    relevant = collections.defaultdict(set)
    for line in (directory / "qrels/test.tsv").read_text().splitlines()[1:]:
        question, document, grade = line.split("\t")
        if int(grade) > 0:
            relevant[question.strip()].add(document.strip())
    return documents, questions, relevant


def quality(found, relevant):
    """nDCG@10 and recall@5 of documents in their order."""
    gain = sum(1 / math.log2(at + 2) for at, document in enumerate(found[:RANKED]) if document in relevant)
    ideal = sum(1 / math.log2(at + 2) for at in range(min(RANKED, len(relevant))))
    return gain / ideal, len(relevant.intersection(found[:RECALLED])) / len(relevant)


def interval(values):
    """The mean with its 95 % bootstrap interval."""
    draws = random.Random(SEED)
    means = sorted(sum(draws.choices(values, k=len(values))) / len(values) for _ in range(SAMPLES))
    mean = sum(values) / len(values)
    return f"{mean:.3f} ({means[SAMPLES // 40]:.3f} to {means[-SAMPLES // 40]:.3f})"


class Daemon:
    def __init__(self, options, directory, documents):
        self.program, self.directory = options.artel, directory
        notes = directory / "catalog/notes"
        notes.mkdir(parents=True)
        for name, text in documents.items():
            (notes / f"{name}.txt").write_text(text)
        yaml = "knowledge: notes\nsources: [notes]\nchunk: {tokens: 512, overlap: 0}\n"
        if options.embedding:
            prefixes = 'prefixes: {query: "query: ", passage: "passage: "}\n' if options.prefixes else ""
            yaml += f"embedding: chosen\n---\nmodel: chosen\nfile: {options.embedding}\nuse: embedding\n{prefixes}"
        else:
            yaml += "embedding: minilm\n"
        (directory / "catalog/notes.yaml").write_text(yaml)
        arguments = [options.artel, "serve", "--json", "--listen", "127.0.0.1:0", "--data", directory / "data"]
        arguments += ["--catalog", directory / "catalog", "--models", options.models]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=(directory / "log").open("w"), text=True)
        self.address = json.loads(self.process.stdout.readline())["listening"]
        self.token = (directory / "data/token").read_text().strip()

    def until_indexed(self, documents):
        while True:
            environment = os.environ | {"ARTEL_ADDRESS": self.address, "ARTEL_DATA": str(self.directory / "data")}
            command = [self.program, "knowledge", "status", "notes", "--json"]
            shown = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
            status = json.loads(shown.splitlines()[0])
            if int(status["sources"]) + int(status["failed"]) >= documents and int(status["pending"]) == 0:
                return status
            time.sleep(POLL_SECONDS)

    def search(self, question, mode):
        body = {"knowledge": "notes", "query": question, "top": PASSAGES, "mode": mode}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(f"http://{self.address}/v1/search", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=600) as response:
            passages = json.load(response)["data"]
        return list(dict.fromkeys(pathlib.PurePath(passage["source"]).stem for passage in passages))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artel", type=pathlib.Path)
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--embedding")
    parser.add_argument("--prefixes", action="store_true")
    options = parser.parse_args()
    read = cranfield if (options.directory / "cranqrel").exists() else beir
    documents, questions, relevant = read(options.directory)
    documents = {name: text for name, text in documents.items() if text.strip()}
    asked = [question for question in questions if relevant.get(question)]
    with tempfile.TemporaryDirectory() as directory:
        daemon = Daemon(options, pathlib.Path(directory), documents)
        try:
            status = daemon.until_indexed(len(documents))
            print(f"{status['sources']} documents, {status['passages']} passages, {len(asked)} questions", flush=True)
            found = {mode: [daemon.search(questions[name], mode) for name in asked] for mode in MODES}
        finally:
            daemon.process.terminate()
            daemon.process.wait()
    gains = {}
    for mode in MODES:
        figures = [quality(ranked, relevant[name]) for name, ranked in zip(asked, found[mode])]
        gains[mode] = [gain for gain, _ in figures]
        print(f"{mode}: nDCG@10 {interval(gains[mode])}, recall@5 {interval([recall for _, recall in figures])}")
    for mode in MODES[:2]:
        print(f"hybrid - {mode}: nDCG@10 {interval([one - other for one, other in zip(gains['hybrid'], gains[mode])])}")


main()
