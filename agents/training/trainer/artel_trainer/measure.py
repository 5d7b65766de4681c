"""What is measured beside the training: loss on held-out answers, peak memory, and a forecast before the first step."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy
import torch

from artel_trainer.process import peak_resident_bytes
from artel_trainer.run_directory import Sample
from artel_trainer.trainer import AdapterTrainer, labelled

# AdamW keeps two moments of four bytes for each trainable parameter, from the first step on.
OPTIMIZER_BYTES_PER_PARAMETER = 8


@dataclass(frozen=True)
class Evaluation:
    """Loss on answers: `loss` is the mean negative log-likelihood in nats per answer token over all samples."""

    loss: float
    samples: int
    tokens: int


@dataclass(frozen=True)
class Forecast:
    """Upper bounds: a step with the longest batch, an evaluation of all held-out samples, and memory at its peak."""

    step_seconds: float
    evaluation_seconds: float
    peak_bytes: int


def longest_first(samples: list[Sample]) -> list[Sample]:
    """Samples by length; batches cut from this need the least padding, and memory runs out at once or never."""
    return sorted(samples, key=lambda sample: sample.length, reverse=True)


def evaluate(trainer: AdapterTrainer, samples: list[Sample]) -> Evaluation:
    """Loss of the present weights on the answers of the samples; the sum is taken over tokens, not over batches."""
    ordered = longest_first(samples)
    size = trainer.args.per_device_train_batch_size
    total = 0.0
    tokens = sum(len(sample.answer) for sample in samples)
    model = trainer.model_wrapped
    model.eval()
    with torch.no_grad(), trainer.accelerator.autocast():
        for start in range(0, len(ordered), size):
            batch = collate(trainer, ordered[start : start + size])
            total += trainer.answer_loss(model, batch).item()
    model.train()
    return Evaluation(total / tokens, len(samples), tokens)


def forecast(trainer: AdapterTrainer, train: list[Sample], held_out: list[Sample]) -> Forecast:
    """Runs the longest batch forward and backward and evaluates the longest held-out samples; nothing of it stays."""
    size = trainer.args.per_device_train_batch_size
    ordered = longest_first(train)
    with unchanged(trainer):
        # The first pass also compiles kernels and takes fresh memory, one of another shape breaks that memory into pieces;
        # the last takes what later steps take.
        for batch in (ordered[:size], ordered[-size:], ordered[:size]):
            began = time.perf_counter()
            step(trainer, batch)
            step_seconds = time.perf_counter() - began
        began = time.perf_counter()
        evaluate(trainer, longest_first(held_out)[:size])
        evaluation_seconds = (time.perf_counter() - began) * (-(-len(held_out) // size))
    trainable = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    return Forecast(step_seconds, evaluation_seconds, peak_bytes() + trainable * OPTIMIZER_BYTES_PER_PARAMETER)


def step(trainer: AdapterTrainer, samples: list[Sample]) -> None:
    """One forward and backward pass as the training does it."""
    batch = collate(trainer, samples)
    answer_tokens = trainer._get_num_items_in_batch([batch], trainer.args.device)
    trainer.training_step(trainer.model_wrapped, batch, answer_tokens)
    synchronize()


def collate(trainer: AdapterTrainer, samples: list[Sample]) -> dict[str, torch.Tensor]:
    """A batch on the training's device, padded to its longest sample."""
    batch = trainer.data_collator([labelled(sample) for sample in samples])
    return {name: tensor.to(trainer.args.device) for name, tensor in batch.items()}


@contextmanager
def unchanged(trainer: AdapterTrainer) -> Iterator[None]:
    """Puts back the random state, the gradients and TRL's counters; weights and optimizer are not touched within."""
    states = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    on_device = torch.cuda.get_rng_state() if trainer.args.device.type == "cuda" else None
    try:
        yield
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if on_device is not None:
            torch.cuda.set_rng_state(on_device)
        trainer.model_wrapped.zero_grad()
        trainer._metrics["train"].clear()
        trainer._total_train_tokens = 0


def synchronize() -> None:
    """Waits for the device, so that a clock read after it is true."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_bytes() -> int:
    """Peak memory so far: of the device if there is one, else of this process."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_resident_bytes()
