"""Token ids that are not the base's own stop a run before its first step."""

import shutil
from pathlib import Path

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
    count, last = len(first.prompt), first.prompt[-1]
    place = f"differs at token {count - 1}: the run, with {count} tokens, has {last} ('\\n') there"
    assert f"the prompt of the sample from train.jsonl:1 {place}" in failure.message, failure.message


def test_a_token_too_many_is_refused(tokenizer: PreTrainedTokenizerBase, first: Sample) -> None:
    assert "prompt" in refused(tokenizer, changed(first, prompt=[*first.prompt, first.prompt[0]])).message
    assert "answer" in refused(tokenizer, changed(first, answer=[first.answer[0], *first.answer])).message
    assert "has none there" in refused(tokenizer, changed(first, answer=first.answer[:-1])).message


def test_little_of_a_sample_is_told(tokenizer: PreTrainedTokenizerBase, first: Sample) -> None:
    word = "confidential" * 5
    tokenizer.add_tokens([word])
    token = tokenizer.convert_tokens_to_ids(word)
    failure = refused(tokenizer, changed(first, prompt=[*first.prompt[:3], token, *first.prompt[4:]]))
    assert f"{token} ('{word[:19]}…')" in failure.message, failure.message
    assert word[:20] not in failure.message
    tokenizer.chat_template = "{{ raise_exception('no: ' + messages[0]['content']) }}"
    message = refused(tokenizer, first).message
    assert "TemplateError" in message and first.messages[0]["content"] not in message
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    assert "roles must alternate" in refused(tokenizer, first).message


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
