"""Token ids that are not the base's own stop a run before its first step."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import TEMPLATE, Run
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from artel_trainer import proof
from artel_trainer.failure import Failure
from artel_trainer.run_directory import RunDirectory, Sample


@pytest.fixture
def tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """The base's tokenizer."""
    return AutoTokenizer.from_pretrained(base)


@pytest.fixture
def first(pristine: Path) -> Sample:
    """The first sample of the run."""
    return RunDirectory(pristine).samples("train.jsonl")[0]


def changed(sample: Sample, **fields: object) -> Sample:
    """A sample with other fields."""
    return Sample(**{**vars(sample), **fields})


def refused(tokenizer: PreTrainedTokenizerBase, sample: Sample) -> Failure:
    """The failure of a sample that the proof must refuse."""
    with pytest.raises(Failure) as error:
        proof.check(tokenizer, [sample], {})
    assert error.value.kind == "proof" and error.value.origin == sample.origin
    return error.value


def test_the_base_s_own_tokens_pass(tokenizer: PreTrainedTokenizerBase, pristine: Path) -> None:
    assert proof.check(tokenizer, RunDirectory(pristine).samples("train.jsonl"), {}) == 10


def test_a_template_changed_by_one_space_is_refused(tokenizer: PreTrainedTokenizerBase, first: Sample) -> None:
    tokenizer.chat_template = TEMPLATE.replace("assistant\n", "assistant \n")
    failure = refused(tokenizer, first)
    assert "the prompt of the sample from train.jsonl:1" in failure.message and ">'\\n'<" in failure.message


def test_a_token_too_many_is_refused(tokenizer: PreTrainedTokenizerBase, first: Sample) -> None:
    assert "prompt" in refused(tokenizer, changed(first, prompt=[*first.prompt, first.prompt[0]])).message
    assert "answer" in refused(tokenizer, changed(first, answer=[first.answer[0], *first.answer])).message
    assert ">end<" in refused(tokenizer, changed(first, answer=first.answer[:-1])).message


def test_another_end_of_turn_is_refused(tokenizer: PreTrainedTokenizerBase, first: Sample) -> None:
    assert "<|endoftext|>" in refused(tokenizer, changed(first, answer=[*first.answer[:-1], 0])).message


def test_a_template_that_renders_a_finished_turn_otherwise_passes(tokenizer: PreTrainedTokenizerBase, first: Sample) -> None:
    turn = "{% if message['role'] == 'assistant' %}<think>\n</think>\n{% endif %}{{ message['content'] }}"
    tokenizer.chat_template = TEMPLATE.replace("{{ message['content'] }}", turn)
    assert proof.check(tokenizer, [first], {}) == 1
    refused(tokenizer, changed(first, answer=[first.answer[0], *first.answer]))


def test_arguments_of_the_template_count(tokenizer: PreTrainedTokenizerBase, first: Sample) -> None:
    tokenizer.chat_template = TEMPLATE.replace("assistant\n{% endif", "assistant\n{% if brief %}Brief.{% endif %}{% endif")
    assert proof.check(tokenizer, [first], {"brief": False}) == 1
    with pytest.raises(Failure):
        proof.check(tokenizer, [first], {"brief": True})


def test_a_run_with_a_changed_template_fails(run: Run, base: Path, tmp_path: Path) -> None:
    other = tmp_path / "base"
    shutil.copytree(base, other)
    template = other / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant\n", "assistant \n"))
    run.change(lambda data: data.update(base={"checkpoint": str(other)}))
    assert run.finish() == 3
    failed = run.last("failed")
    assert failed["kind"] == "proof" and failed["origin"] == "train.jsonl:1" and "checked" not in run.names()


def test_a_change_in_held_out_samples_counts(run: Run) -> None:
    run.change_first("held_out.jsonl", lambda sample: sample["answer"].append(5))
    assert run.finish() == 3 and run.last("failed")["origin"] == "held.jsonl:1"


def test_memory_is_told_from_other_failures() -> None:
    from artel_trainer.failure import from_exception

    assert from_exception(MemoryError()).kind == "memory"
    assert from_exception(RuntimeError("DefaultCPUAllocator: can't allocate memory")).kind == "memory"
    assert "`batch`" in from_exception(MemoryError()).message
    assert from_exception(KeyError("x")).kind == "other"
    assert json.dumps(SimpleNamespace(message=from_exception(ValueError("a\nb")).message).message).count("\\n") == 0
