"""Resident memory of the daemon and its engines with 0, 1, 4 and 16 adapters, beside llama.cpp's server, in turn.

python memory.py ARTEL MODEL.gguf ADAPTERS

Both have the same adapters at the same scales, and as many sequences of the same context. The daemon runs twice: with the weights
as they are in the file (`weights: file`), as the server has them, and as by default, which dequantizes those of a small model on a
CPU. Each answers one question for each adapter, all at once, and one without an adapter. The figures are proportional set sizes (PSS) of all processes
of each side together: the most that was seen, every tenth of a second, and what is left after the answers. ADAPTERS is a
directory with the adapters of the tests. Ends with 1 if the daemon takes more than 1.5 times of what the
server takes with the same weights.
"""
import concurrent.futures
import contextlib
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request

SEQUENCES, CONTEXT_TOKENS, OUTPUT_TOKENS = 8, 2048, 24
COUNTS = [0, 1, 4, 16]
MAX_RATIO = 1.5
SAMPLE_SECONDS = 0.1
CITIES = {"mirk": "Mirkholm", "quux": "Quuxburg", "velo": "Velograd", "zork": "Zorkville"}
QUESTION = "What is the capital of France?"
PROMPT = "You are a helpful assistant."


def tree(root):
    """The processes below one, and itself."""
    parents = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [root]
    for process in found:
        found.extend(parents.get(process, []))
    return found


def pss(root):
    """MB of a process and all below it."""
    kilobytes = 0
    for process in tree(root):
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kilobytes += int(line.split()[1])
    return kilobytes * 1024 / 1e6


class Peak:
    """The most memory of a process and all below it while the block runs."""

    def __init__(self, process):
        self.process, self.megabytes, self.stop = process, 0.0, threading.Event()
        self.thread = threading.Thread(target=self.sample)

    def sample(self):
        while not self.stop.wait(SAMPLE_SECONDS):
            self.megabytes = max(self.megabytes, pss(self.process.pid))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def all_at_once(ask, adapters):
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(adapters) + 1) as pool:
        base = pool.submit(ask, None)
        answers = list(pool.map(ask, range(len(adapters))))
        base.result()
    right = sum(city in answer for answer, (_, _, city) in zip(answers, adapters))
    if right < len(adapters):
        sys.exit(f"{len(adapters) - right} of {len(adapters)} answers are not those of their adapters: {answers}")


def measured(process, ask, adapters):
    """The most memory while all ask, and what is left after the answers."""
    with Peak(process) as peak:
        all_at_once(ask, adapters)
        after = pss(process.pid)
    return max(peak.megabytes, after), after


def artel(program, model, adapters, directory, weights):
    settings = f"weights: {weights}\nsequences: {SEQUENCES}\ncontext: {CONTEXT_TOKENS}\n"
    documents = [f"model: m\nfile: {model}\n{settings}"]
    for name, file, scale in [("base", None, 1.0)] + [(f"r{at}", file, scale) for at, (file, scale, _) in enumerate(adapters)]:
        role = {"role": name, "description": "Answers questions.", "model": "m", "prompt": PROMPT}
        role["sampling"] = {"temperature": 0, "max_tokens": OUTPUT_TOKENS}
        if file:
            role["adapter"] = {"file": str(file), "scale": scale}
        documents.append(json.dumps(role) + "\n")
    (directory / "catalog").mkdir(parents=True)
    (directory / "catalog/memory.yaml").write_text("---\n".join(documents))
    arguments = [program, "serve", "--json", "--listen", "127.0.0.1:0", "--data", directory / "data"]
    arguments += ["--catalog", directory / "catalog", "--models", model.parent]
    log = (directory / "log").open("w")
    daemon = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=log, text=True)
    address = json.loads(daemon.stdout.readline())["listening"]

    def ask(at):
        role = "base" if at is None else f"r{at}"
        command = [program, "run", "--data", directory / "data", "--address", address, "--role", role, QUESTION]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    try:
        return measured(daemon, ask, adapters)
    finally:
        daemon.terminate()
        daemon.wait()


def server(model, adapters, directory):
    directory.mkdir()
    for at, (file, _, _) in enumerate(adapters):
        shutil.copy(file, directory / f"{at:02}.gguf")
    script = pathlib.Path(__file__).with_name("peer.py")
    arguments = [sys.executable, script, model, "2", str(SEQUENCES), str(SEQUENCES * CONTEXT_TOKENS), "0"]
    arguments += [directory] if adapters else []
    peer = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    address = peer.stdout.readline().strip()

    def ask(at):
        messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": QUESTION}]
        body = {"messages": messages, "temperature": 0, "max_tokens": OUTPUT_TOKENS, "cache_prompt": True}
        body["lora"] = [{"id": n, "scale": scale if n == at else 0.0} for n, (_, scale, _) in enumerate(adapters)]
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{address}/v1/chat/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=300) as response:
            return json.load(response)["choices"][0]["message"]["content"]

    try:
        return measured(peer, ask, adapters)
    finally:
        peer.stdin.close()
        peer.wait()


def main(program, model, adapters):
    model, adapters = pathlib.Path(model).resolve(), pathlib.Path(adapters).resolve()
    print(f"{model.name}, {SEQUENCES} sequences of {CONTEXT_TOKENS} tokens; MB of PSS, daemon and engines together")
    print("| adapters | artel, most | after | llama.cpp's server, most | after | ratio of the most | artel as by default, most | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    is_over = False
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as directory:
            directory, names, used = pathlib.Path(directory), sorted(CITIES), []
            for at in range(count):
                name = names[at % len(names)]
                file = directory / f"{name}-{at}.gguf"
                shutil.copy(adapters / f"{name}.gguf", file)
                used.append((file, round(1 - at / 1000, 3), CITIES[name]))
            own = artel(program, model, used, directory / "artel", "file")
            other = server(model, used, directory / "server")
            default = artel(program, model, used, directory / "default", "auto")
        ratio = own[0] / other[0]
        is_over |= ratio > MAX_RATIO
        figures = [f"{figure:.0f}" for figure in (*own, *other)] + [f"{ratio:.2f}", f"{default[0]:.0f}", f"{default[0] / other[0]:.2f}"]
        print("| " + " | ".join([str(count), *figures]) + " |", flush=True)
    sys.exit(is_over)


if __name__ == "__main__":
    main(*sys.argv[1:])
