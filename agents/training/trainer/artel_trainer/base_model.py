"""The base model and its tokenizer as Transformers reads them, and the LoRA adapter on top."""

import shutil
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from artel_trainer.checkpoints import flush_to_disk
from artel_trainer.failure import Failure, describe, is_full_disk, is_out_of_memory
from artel_trainer.run_directory import Base, Lora, RunDirectory

transformers_logging.disable_progress_bar()


def choose_device() -> str:
    """`cuda` if torch sees a device of it, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def weight_dtype(device: str) -> torch.dtype:
    """Type of the base's weights: bfloat16 on a GPU that has it, else float32."""
    return torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def load_tokenizer(base: Base) -> PreTrainedTokenizerBase:
    """The base's own tokenizer with its chat template."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory(base), **file_within(base))
    except Exception as error:
        if is_out_of_memory(error) or is_full_disk(error):
            raise
        raise unreadable(base, "the tokenizer", error) from error
    if not tokenizer.chat_template:
        raise Failure("base", f"{base.path} has no chat template; take a base that was made for chat")
    return tokenizer


def load_model(base: Base, dtype: torch.dtype) -> PreTrainedModel:
    """The base's weights; those of a GGUF are dequantised."""
    # Without this configuration Transformers counts the model as quantized, even when its weights are not, and refuses to
    # train it.
    dense = {"quantization_config": GgufConfig(dequantize=True)} if base.kind == "gguf" else {}
    try:
        model = AutoModelForCausalLM.from_pretrained(directory(base), dtype=dtype, **file_within(base), **dense)
    except Exception as error:
        if is_out_of_memory(error) or is_full_disk(error):
            raise
        raise unreadable(base, "the model", error) from error
    # Adapters and their configuration are named after the base; a path of this machine has no place there.
    model.name_or_path = model.config.name_or_path = base.path.name
    return model


def add_adapter(model: PreTrainedModel, base: Base, lora: Lora) -> PeftModel:
    """A new adapter on the model; `all-linear` means every linear layer except the output layer."""
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
        base_model_name_or_path=base.path.name,
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise Failure("settings", f"`targets` of `lora` do not fit the base: {describe(error)}; name its layers") from error


def save_adapter(model: PeftModel, run: RunDirectory) -> None:
    """Writes the adapter beside its place and puts it there by a rename."""
    new = run.adapter_in_writing
    shutil.rmtree(new, ignore_errors=True)
    model.save_pretrained(new, save_embedding_layers=False)
    for path in new.iterdir():
        if path.name in ("adapter_model.safetensors", "adapter_config.json"):
            flush_to_disk(path)
        else:
            path.unlink()
    shutil.rmtree(run.adapter, ignore_errors=True)
    new.rename(run.adapter)
    flush_to_disk(run.root)


def directory(base: Base) -> Path:
    """The directory that Transformers reads."""
    return base.path.parent if base.kind == "gguf" else base.path


def file_within(base: Base) -> dict[str, str]:
    """The argument that names a GGUF within its directory."""
    return {"gguf_file": base.path.name} if base.kind == "gguf" else {}


def unreadable(base: Base, part: str, error: Exception) -> Failure:
    """The failure of kind `base` for an error of Transformers."""
    return Failure(
        "base", f"Transformers cannot read {part} of {base.path}: {describe(error)}; take a base that it can read"
    )
