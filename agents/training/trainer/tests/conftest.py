"""A tiny random model with its tokenizer, and runs of the trainer in processes forked from one that has it loaded."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

os.environ["ARTEL_TRAINER_KEEP_PRIORITY"] = "1"
# Weights are compared bit by bit, and the tests compute on the CPU whatever the machine has.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

from artel_trainer import process  # noqa: E402
from artel_trainer.events import EventLog  # noqa: E402

process.set_environment(threads=1)

import pytest  # noqa: E402

# Far longer than anything takes on a busy machine.
WAIT_SECONDS = 600
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CITIES = {"Peru": "Lima", "Cuba": "Havana", "Kenya": "Nairobi", "Ghana": "Accra", "Chile": "Santiago"}
Json = dict[str, Any]


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Starts processes in which torch and the trainer are already imported, so that a run costs no import."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["artel_trainer.training"])
    return context


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint directory of a random Llama of some thousand parameters."""
    directory = tmp_path_factory.mktemp("base")
    from tiny_model import make

    make(directory, TEMPLATE, [text for sample in conversations(8) for text in (sample[0], sample[1])])
    return directory


@pytest.fixture(scope="session")
def pristine(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's directory as Artel writes it, before any training."""
    from transformers import AutoTokenizer

    root = tmp_path_factory.mktemp("pristine") / "run"
    root.mkdir()
    tokenizer = AutoTokenizer.from_pretrained(base)
    write_lines(root / "train.jsonl", [sample(tokenizer, "train", *pair) for pair in numbered(conversations(10))])
    write_lines(root / "held_out.jsonl", [sample(tokenizer, "held", *pair) for pair in numbered(conversations(3))])
    write_json(root / "settings.json", settings(base))
    return root


@pytest.fixture
def run(pristine: Path, tmp_path: Path, processes: ForkServerContext) -> Iterator[Run]:
    """A fresh copy of the run's directory, and a way to run the trainer on it."""
    root = tmp_path / "run"
    shutil.copytree(pristine, root)
    run = Run(root, processes)
    yield run
    run.kill()


@dataclass
class Run:
    """A run's directory and the trainer's process on it."""

    root: Path
    context: ForkServerContext
    child: ForkServerProcess | None = field(default=None)

    def change(self, change: Callable[[Json], None]) -> Run:
        """Changes the settings."""
        data = json.loads((self.root / "settings.json").read_text())
        change(data)
        write_json(self.root / "settings.json", data)
        return self

    def change_first(self, name: str, change: Callable[[Json], None]) -> Run:
        """Changes the first sample of a file."""
        lines = [json.loads(line) for line in (self.root / name).read_text().splitlines()]
        change(lines[0])
        write_lines(self.root / name, lines)
        return self

    def start(self, hold: tuple[str, int] | None = None) -> Run:
        """Starts the trainer; with `hold` it waits for a SIGTERM when it has written an event so often."""
        self.child = self.context.Process(target=entry, args=(self.root, hold), daemon=True)
        self.child.start()
        return self

    def wait(self) -> int:
        """Waits for the end of the trainer and returns its exit code; a signal's is negative."""
        assert self.child is not None
        self.child.join(WAIT_SECONDS)
        assert self.child.exitcode is not None, f"still running after {WAIT_SECONDS} s: {self.names()}"
        return self.child.exitcode

    def finish(self) -> int:
        """Runs the trainer to its end."""
        return self.start().wait()

    def kill(self) -> int | None:
        """Kills the trainer, as a crash would."""
        if self.child is None:
            return None
        self.child.kill()
        return self.wait()

    def signal(self, number: int) -> None:
        """Sends a signal."""
        assert self.child is not None and self.child.pid is not None
        os.kill(self.child.pid, number)

    def until(self, name: str, count: int = 1) -> Json:
        """Waits for an event to come so many times and returns the last of them."""
        assert self.child is not None
        for _ in range(WAIT_SECONDS * 100):
            ended = self.child.exitcode is not None
            found = self.all(name)
            if len(found) >= count:
                return found[count - 1]
            assert not ended, f"ended without {name}: {self.events()}"
            self.child.join(0.01)
        raise AssertionError(f"no {name} after {WAIT_SECONDS} s: {self.names()}")

    def events(self) -> list[Json]:
        """All whole lines of the file of events."""
        path = self.root / "events.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def names(self) -> list[str]:
        """Names of all events."""
        return [event["event"] for event in self.events()]

    def all(self, name: str) -> list[Json]:
        """All events of a name."""
        return [event for event in self.events() if event["event"] == name]

    def last(self, name: str) -> Json:
        """The last event of a name."""
        return self.all(name)[-1]

    def adapter(self) -> bytes:
        """The trained weights."""
        return (self.root / "adapter" / "adapter_model.safetensors").read_bytes()


def entry(root: Path, hold: tuple[str, int] | None) -> None:
    """What a forked process does: the command line without its priority and without its watch on stdin."""
    from artel_trainer.cli import run_training
    from artel_trainer.run_directory import RunDirectory

    with open(root / "stderr.txt", "ab") as file:
        os.dup2(file.fileno(), 2)
        os.dup2(file.fileno(), 1)
    if hold is not None:
        hold_after(*hold)
    os._exit(run_training(RunDirectory(root)))


def hold_after(name: str, count: int) -> None:
    """Makes this process wait for a SIGTERM after so many events of a name."""
    write, written = EventLog.write, []

    def write_and_hold(log: EventLog, event: str, **fields: Any) -> None:  # noqa: ANN401
        write(log, event, **fields)
        written.append(event)
        while event == name and written.count(name) == count and not term_has_come():
            time.sleep(0.01)

    EventLog.write = write_and_hold


def term_has_come() -> bool:
    """Whether the trainer's handler has taken a SIGTERM: it ignores further ones."""
    return signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def settings(base: Path) -> Json:
    """Settings of a training of six steps, with dropout, so that the random state matters."""
    return {
        "format": 1,
        "base": {"checkpoint": str(base)},
        "lora": {"rank": 4, "alpha": 8.0, "dropout": 0.1, "targets": "all-linear"},
        "schedule": {
            "epochs": 2.0,
            "learning_rate": 0.02,
            "batch_samples": 4,
            "warmup": 0.1,
            "weight_decay": 0.0,
        },
        "seed": 7,
        "threads": 1,
        "template_kwargs": {},
        "checkpoint_seconds": 3600,
    }


def conversations(count: int) -> list[tuple[str, str]]:
    """Questions with answers of different lengths."""
    pairs = list(CITIES.items())
    return [
        (f"What is the capital of {pairs[i % 5][0]}?", f"It is {pairs[i % 5][1]}." + " A large town." * (i % 3))
        for i in range(count)
    ]


def numbered(pairs: list[tuple[str, str]]) -> Iterator[tuple[int, str, str]]:
    """Pairs with a number from 1."""
    return ((number, question, answer) for number, (question, answer) in enumerate(pairs, 1))


def sample(tokenizer: Any, name: str, number: int, question: str, answer: str) -> Json:  # noqa: ANN401
    """A sample with the token ids of the tokenizer."""
    messages = [{"role": "user", "content": question}]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    return {
        "origin": f"{name}.jsonl:{number}",
        "prompt": tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False),
        "answer": [*tokenizer.encode(answer, add_special_tokens=False), end],
        "messages": messages,
        "text": answer,
    }


def write_json(path: Path, data: Json) -> None:
    """Writes one JSON value."""
    path.write_text(json.dumps(data))


def write_lines(path: Path, samples: list[Json]) -> None:
    """Writes one JSON value a line."""
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
