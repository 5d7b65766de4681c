"""One training from proof to adapter, on a run's directory."""

import platform
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import torch

from artel_trainer import base_model, measure, proof
from artel_trainer.checkpoints import Checkpoints, step_of
from artel_trainer.events import EventLog
from artel_trainer.process import Stop
from artel_trainer.run_directory import RunDirectory, Settings
from artel_trainer.trainer import AdapterTrainer, Reporter, arguments

LIBRARIES = ["torch", "transformers", "peft", "trl", "accelerate"]


def train(run: RunDirectory, settings: Settings, events: EventLog, stop: Stop) -> None:
    """Trains, or goes on from the newest checkpoint; a failure is raised as an exception."""
    torch.set_num_threads(settings.threads)
    train_samples, held_out = run.samples("train.jsonl"), run.samples("held_out.jsonl")
    device = base_model.choose_device()
    dtype = base_model.weight_dtype(device)
    checkpoints = Checkpoints(run.checkpoints)
    resumed = checkpoints.newest()
    tokenizer = base_model.load_tokenizer(settings.base)
    checked = proof.check(tokenizer, chain(train_samples, held_out), settings.template_kwargs)
    torch.manual_seed(settings.seed)
    model = base_model.add_adapter(base_model.load_model(settings.base, dtype), settings.base, settings.lora)
    write_started(events, model, device, resumed)
    events.write("checked", samples=checked, tokenizer=settings.base.kind)

    config = arguments(settings, len(train_samples), device, dtype, checkpoints.staging)
    trainer = AdapterTrainer(model, tokenizer, config, train_samples, checkpoints)

    def before_first_step() -> None:
        forecast = measure.forecast(trainer, train_samples, held_out)
        events.write("forecast", steps=trainer.state.max_steps, **vars(forecast))
        write_evaluated(events, 0, measure.evaluate(trainer, held_out))

    reporter = Reporter(settings, len(train_samples), events, stop, before_first_step)
    trainer.add_callback(reporter)
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    steps = trainer.state.global_step
    write_evaluated(events, steps, measure.evaluate(trainer, held_out))
    base_model.save_adapter(trainer.model, run)
    events.write("finished", step=steps, samples_per_second=reporter.samples_per_second, peak_bytes=measure.peak_bytes())


def write_started(events: EventLog, model: torch.nn.Module, device: str, resumed: Path | None) -> None:
    """Writes versions, sizes and the step that a resumed run starts from."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    events.write(
        "started",
        versions={**{name: version(name) for name in LIBRARIES}, "python": platform.python_version()},
        device=device,
        parameters=sum(size for size, _ in sizes),
        trainable=sum(size for size, trainable in sizes if trainable),
        resumed_step=step_of(resumed) if resumed else 0,
    )


def write_evaluated(events: EventLog, step: int, evaluation: measure.Evaluation) -> None:
    """Writes the loss on held-out samples after a step."""
    events.write("evaluated", step=step, **vars(evaluation))
