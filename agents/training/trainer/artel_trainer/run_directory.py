"""A run's directory as Artel wrote it: settings and samples, read and checked once."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from artel_trainer.failure import Failure

FORMAT = 1
ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class Base:
    """The model that is adapted: a GGUF file or a directory of a Transformers checkpoint."""

    kind: Literal["gguf", "checkpoint"]
    path: Path


@dataclass(frozen=True)
class Lora:
    """Shape of the adapter; `targets` are names of modules or `all-linear`."""

    rank: int
    alpha: float
    dropout: float
    targets: str | list[str]


@dataclass(frozen=True)
class Schedule:
    """Length and rates of the training; `warmup` is the part of all steps in which the learning rate rises."""

    epochs: float
    learning_rate: float
    batch_samples: int
    warmup: float
    weight_decay: float

    def steps(self, samples: int) -> int:
        """Optimizer steps of a training on so many samples."""
        return max(1, math.ceil(self.epochs * math.ceil(samples / self.batch_samples)))


@dataclass(frozen=True)
class Settings:
    """What `settings.json` holds."""

    base: Base
    lora: Lora
    schedule: Schedule
    seed: int
    threads: int
    template_kwargs: dict[str, Any]
    checkpoint_seconds: float


@dataclass(frozen=True)
class Sample:
    """One example: token ids of what the model reads (`prompt`) and of what it is to write (`answer`)."""

    origin: str
    prompt: list[int]
    answer: list[int]
    messages: list[dict[str, Any]]
    text: str

    @property
    def length(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True)
class RunDirectory:
    """Paths within a run's directory."""

    root: Path

    @property
    def events(self) -> Path:
        """Events, written by the trainer."""
        return self.root / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """What a resume needs."""
        return self.root / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The trained adapter in PEFT's form."""
        return self.root / "adapter"

    @property
    def adapter_in_writing(self) -> Path:
        """The adapter before it is whole."""
        return self.root / "adapter.new"

    def settings(self) -> Settings:
        """Reads and checks `settings.json`."""
        path = self.root / "settings.json"
        try:
            return parse_settings(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise Failure("settings", f"settings.json of the run cannot be read: {error}; write it again") from error

    def samples(self, name: str) -> list[Sample]:
        """Reads and checks `train.jsonl` or `held_out.jsonl`; an empty file is a failure."""
        samples = []
        try:
            with open(self.root / name, encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    samples.append(parse_sample(json.loads(line), f"{name}:{number}"))
        except (OSError, ValueError) as error:
            raise Failure("settings", f"{name} of the run cannot be read: {error}; write it again") from error
        if not samples:
            raise Failure("settings", f"{name} of the run holds no sample; give at least one")
        return samples


def parse_settings(data: object) -> Settings:
    """Checks the content of `settings.json`; a fault is a ValueError that names the key."""
    top = Fields(data, "the file")
    if top.take("format", int) != FORMAT:
        raise ValueError(f"format must be {FORMAT}, which is the one that this trainer knows")
    settings = Settings(
        base=parse_base(Fields(top.take("base", dict), "base")),
        lora=parse_lora(Fields(top.take("lora", dict), "lora")),
        schedule=parse_schedule(Fields(top.take("schedule", dict), "schedule")),
        seed=top.integer("seed", least=0),
        threads=top.integer("threads", least=1),
        template_kwargs=top.take("template_kwargs", dict),
        checkpoint_seconds=top.number("checkpoint_seconds", least=0.0),
    )
    top.end()
    return settings


def parse_base(fields: "Fields") -> Base:
    """Checks `base`: exactly one of `gguf` and `checkpoint`, and that it exists."""
    keys = sorted(fields.rest)
    if keys not in (["checkpoint"], ["gguf"]):
        raise ValueError("base must have exactly one key, gguf or checkpoint")
    kind = keys[0]
    path = Path(fields.take(kind, str))
    if not (path.is_file() if kind == "gguf" else path.is_dir()):
        raise ValueError(f"base.{kind} is not a {'file' if kind == 'gguf' else 'directory'}: {path}")
    return Base("gguf" if kind == "gguf" else "checkpoint", path)


def parse_lora(fields: "Fields") -> Lora:
    """Checks `lora`."""
    targets = fields.take("targets", (str, list))
    if targets != ALL_LINEAR and not (isinstance(targets, list) and targets and all(type(t) is str for t in targets)):
        raise ValueError(f'lora.targets must be "{ALL_LINEAR}" or a list of names of modules')
    lora = Lora(
        rank=fields.integer("rank", least=1),
        alpha=fields.number("alpha", above=0.0),
        dropout=fields.number("dropout", least=0.0, below=1.0),
        targets=targets,
    )
    fields.end()
    return lora


def parse_schedule(fields: "Fields") -> Schedule:
    """Checks `schedule`."""
    schedule = Schedule(
        epochs=fields.number("epochs", above=0.0),
        learning_rate=fields.number("learning_rate", above=0.0),
        batch_samples=fields.integer("batch_samples", least=1),
        warmup=fields.number("warmup", least=0.0, below=1.0),
        weight_decay=fields.number("weight_decay", least=0.0),
    )
    fields.end()
    return schedule


def parse_sample(data: object, where: str) -> Sample:
    """Checks one line of a file of samples."""
    fields = Fields(data, where)
    sample = Sample(
        origin=fields.take("origin", str),
        prompt=fields.token_ids("prompt"),
        answer=fields.token_ids("answer"),
        messages=fields.take("messages", list),
        text=fields.take("text", str),
    )
    fields.end()
    return sample


class Fields:
    """The keys of one JSON object, taken one by one; what is left at the end is an unknown key."""

    def __init__(self, data: object, name: str) -> None:
        if not isinstance(data, dict):
            raise ValueError(f"{name} must be a JSON object")
        self.rest: dict[str, Any] = dict(data)
        self._name = name

    def take(self, key: str, kind: type | tuple[type, ...]) -> Any:  # noqa: ANN401
        """The value of a key, of the given type."""
        value = self.rest.pop(key, None)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{key} of {self._name} is missing or of the wrong type")
        return value

    def integer(self, key: str, least: int) -> int:
        """A whole number that is not below `least`."""
        value = self.take(key, int)
        if value < least:
            raise ValueError(f"{key} of {self._name} is {value}; it must be at least {least}")
        return value

    def number(self, key: str, least: float = -math.inf, above: float = -math.inf, below: float = math.inf) -> float:
        """A number within the given bounds."""
        value = float(self.take(key, (int, float)))
        if not (least <= value and above < value < below):
            raise ValueError(f"{key} of {self._name} is {value}, which is out of range")
        return value

    def token_ids(self, key: str) -> list[int]:
        """A list of token ids that is not empty."""
        value = self.take(key, list)
        if not value or not all(type(token) is int and token >= 0 for token in value):
            raise ValueError(f"{key} of {self._name} must be a list of token ids that is not empty")
        return value

    def end(self) -> None:
        """Refuses keys that nothing asked for."""
        if self.rest:
            raise ValueError(f"{self._name} has an unknown key: {sorted(self.rest)[0]}")
