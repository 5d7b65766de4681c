"""TRL's SFTTrainer with Artel's events, checkpoints by time and pauses.

A step computes what TRL's step computes. On the CPU the logits are taken at answers alone: TRL takes them at every position
there, which made a step of SmolLM2-135M on short chats half again as long.
"""

import inspect
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback, TrainerControl, TrainerState
from transformers import TrainingArguments as Arguments
from trl import SFTConfig, SFTTrainer

from artel_trainer.checkpoints import Checkpoints
from artel_trainer.events import EventLog
from artel_trainer.failure import Failure
from artel_trainer.process import Stop
from artel_trainer.run_directory import Sample, Settings

NO_LOSS = -100

# Logits of a batch and their gradient are held at once; beyond this TRL's way, which takes them in tiles, needs less memory.
MAX_LOGITS_BYTES = 256 << 20
LOGIT_BYTES = 4


def labelled(sample: Sample) -> dict[str, list[int]]:
    """A sample as the trainer takes it: loss on the answer alone."""
    return {"input_ids": sample.prompt + sample.answer, "labels": [NO_LOSS] * len(sample.prompt) + sample.answer}


def arguments(settings: Settings, samples: int, device: str, dtype: torch.dtype, staging: Path) -> SFTConfig:
    """TRL's settings; what Artel does not set stays at TRL's default."""
    schedule = settings.schedule
    config = SFTConfig(
        output_dir=str(staging),
        num_train_epochs=schedule.epochs,
        learning_rate=schedule.learning_rate,
        per_device_train_batch_size=schedule.batch_samples,
        warmup_steps=math.ceil(schedule.warmup * schedule.steps(samples)),
        weight_decay=schedule.weight_decay,
        # As TRL does: on a GPU memory is short, on the CPU time is.
        gradient_checkpointing=device == "cuda",
        seed=settings.seed,
        data_seed=settings.seed,
        use_cpu=device == "cpu",
        bf16=dtype == torch.bfloat16,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_pin_memory=device == "cuda",
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=[],
    )
    # One device a run: with several in sight Transformers would split each batch over all of them.
    config._n_gpu = min(config.n_gpu, 1)
    return config


class AdapterTrainer(SFTTrainer):
    """SFTTrainer that writes checkpoints of the adapter alone, through `Checkpoints`."""

    def __init__(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        config: SFTConfig,
        samples: list[Sample],
        checkpoints: Checkpoints,
    ) -> None:
        super().__init__(
            model=model,
            args=config,
            train_dataset=Dataset.from_list([labelled(sample) for sample in samples]),
            processing_class=tokenizer,
        )
        self.remove_callback(PrinterCallback)
        self._checkpoints = checkpoints
        base = model.get_base_model()
        self._can_choose_logits = "logits_to_keep" in inspect.signature(type(base).forward).parameters
        self._vocabulary = base.config.get_text_config().vocab_size

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean negative log-likelihood of a batch's answer tokens."""
        if not self._takes_logits_at_answers(inputs["labels"]):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self._total_train_tokens += int(inputs["attention_mask"].sum())
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        count = (inputs["labels"] != NO_LOSS).sum() if num_items_in_batch is None else num_items_in_batch
        return loss_at_answers(model, inputs) / count

    def answer_loss(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Negative log-likelihood in nats, summed over a batch's answer tokens."""
        if self._takes_logits_at_answers(inputs["labels"]):
            return loss_at_answers(model, inputs)
        return -model(**inputs, fused_lm_head=True).log_probs.sum(dtype=torch.float32)

    def _takes_logits_at_answers(self, labels: torch.Tensor) -> bool:
        logits = labels.shape[0] * len(answer_positions(labels)) * self._vocabulary
        return self._can_choose_logits and self.args.device.type == "cpu" and logits * LOGIT_BYTES <= MAX_LOGITS_BYTES

    def _save_checkpoint(self, model: torch.nn.Module, trial: None) -> None:
        super()._save_checkpoint(model, trial)
        step = self.state.global_step
        self._checkpoints.commit(Path(self.args.output_dir) / f"checkpoint-{step}", step)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        os.makedirs(output_dir or "", exist_ok=True)
        self.model.save_pretrained(output_dir, state_dict=state_dict, save_embedding_layers=False)

    def create_model_card(self, *_args: object, **_kwargs: object) -> None:
        """Artel keeps its own record of what was trained."""

    def floating_point_ops(self, inputs: dict[str, torch.Tensor]) -> int:
        """Unused by Artel; counting walks over all parameters in every step."""
        return 0


def answer_positions(labels: torch.Tensor) -> torch.Tensor:
    """Positions of a batch at which some sample's next token is of an answer."""
    return (labels[:, 1:] != NO_LOSS).any(dim=0).nonzero().flatten()


def loss_at_answers(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Negative log-likelihood in nats, summed over a batch's answer tokens, from the logits at these positions alone."""
    positions = answer_positions(inputs["labels"])
    logits = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        logits_to_keep=positions,
        use_cache=False,
    ).logits
    next_tokens = inputs["labels"][:, positions + 1]
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), next_tokens.flatten(), ignore_index=NO_LOSS, reduction="sum"
    )


class Reporter(TrainerCallback):
    """Writes the events of a training, asks for checkpoints by time and ends the loop when SIGTERM came."""

    def __init__(
        self, settings: Settings, samples: int, events: EventLog, stop: Stop, before_first_step: Callable[[], None]
    ) -> None:
        self._batch_samples = settings.schedule.batch_samples
        self._checkpoint_seconds = settings.checkpoint_seconds
        self._samples = samples
        self._events = events
        self._stop = stop
        self._before_first_step = before_first_step
        self._tokens = 0
        self._step_began = 0.0
        self._step_seconds = 0.0
        self._checkpointed = 0.0
        self._loop_began = 0.0
        self._loop_ended = 0.0
        self._trained_samples = 0

    @property
    def samples_per_second(self) -> float:
        """Samples that this process trained on, by the time of the whole loop, checkpoints included."""
        seconds = self._loop_ended - self._loop_began
        return self._trained_samples / seconds if seconds > 0 else 0.0

    def on_train_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **_kwargs: Any) -> None:  # noqa: ANN401
        """Measures before the first step; from here on SIGTERM waits for the end of a step."""
        if state.global_step == 0:
            self._before_first_step()
        self._loop_began = self._loop_ended = self._checkpointed = time.perf_counter()
        self._stop.defer()

    def on_step_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **_kwargs: Any) -> None:  # noqa: ANN401
        """Takes the time."""
        self._step_began = time.perf_counter()

    def on_step_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **_kwargs: Any) -> None:  # noqa: ANN401
        """Asks for a checkpoint if the next step would end later than one is due."""
        now = time.perf_counter()
        self._step_seconds = now - self._step_began
        due = now - self._checkpointed + self._step_seconds >= self._checkpoint_seconds
        last = state.global_step >= state.max_steps
        control.should_save = due or last or self._stop.requested
        control.should_training_stop = last or self._stop.requested

    def on_log(  # noqa: ANN401
        self,
        args: Arguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Writes the event of a step; the history of all steps is not kept, since each checkpoint would carry it."""
        state.log_history.clear()
        if logs is None or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise Failure(
                "other",
                f"the loss of step {state.global_step} is not a number; lower `learning_rate` of `schedule`, or raise its "
                "`warmup`",
            )
        tokens, self._tokens = int(logs["num_tokens"]) - self._tokens, int(logs["num_tokens"])
        samples = self.samples_of_step(state.global_step)
        self._trained_samples += samples
        self._loop_ended = time.perf_counter()
        self._events.write(
            "step",
            step=state.global_step,
            steps=state.max_steps,
            epoch=state.epoch,
            loss=logs["loss"],
            learning_rate=logs["learning_rate"],
            tokens=tokens,
            seconds=self._step_seconds,
            samples=samples,
        )

    def on_save(self, args: Arguments, state: TrainerState, control: TrainerControl, **_kwargs: Any) -> None:  # noqa: ANN401
        """Writes the event of a checkpoint, which is whole by now."""
        self._checkpointed = self._loop_ended = time.perf_counter()
        self._events.write("checkpoint", step=state.global_step)

    def on_train_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **_kwargs: Any) -> None:  # noqa: ANN401
        """Leaves the loop; a SIGTERM that came within it is raised here."""
        self._stop.stop_deferring()

    def samples_of_step(self, step: int) -> int:
        """Size of the batch of a step, counted from 1: the last of an epoch may be smaller."""
        steps_in_epoch = math.ceil(self._samples / self._batch_samples)
        done = (step - 1) % steps_in_epoch * self._batch_samples
        return min(self._batch_samples, self._samples - done)
