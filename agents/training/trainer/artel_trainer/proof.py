"""Proof that Artel's token ids are the base's own: each sample is rendered again with Transformers and compared."""

from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedTokenizerBase

from artel_trainer.failure import Failure, describe
from artel_trainer.run_directory import Sample

# Samples are texts of people, and a message goes into events and logs: at most 40 characters of them in one.
MAX_QUOTED_CHARS = 20


def check(tokenizer: PreTrainedTokenizerBase, samples: Iterable[Sample], template_kwargs: dict[str, Any]) -> int:
    """Compares every sample and returns how many there were; the first difference is a `Failure` of kind `proof`."""
    count = 0
    for sample in samples:
        check_sample(tokenizer, sample, template_kwargs)
        count += 1
    return count


def check_sample(tokenizer: PreTrainedTokenizerBase, sample: Sample, template_kwargs: dict[str, Any]) -> None:
    """Compares prompt and answer of one sample."""
    prompt = render(tokenizer, sample, sample.messages, template_kwargs, add_generation_prompt=True)
    if prompt != sample.prompt:
        raise difference(tokenizer, sample, "prompt", sample.prompt, prompt)
    turn = {"role": "assistant", "content": sample.text}
    whole = render(tokenizer, sample, [*sample.messages, turn], template_kwargs, add_generation_prompt=False)
    end = end_of_turn(tokenizer, whole, sample.text)
    written = sample.prompt + sample.answer
    if whole[: len(written)] == written and sample.answer[-1] == end:
        return
    # The template may render a finished turn otherwise than what the model writes after a generation prompt.
    answer = [*tokenizer.encode(sample.text, add_special_tokens=False), end]
    if answer != sample.answer:
        raise difference(tokenizer, sample, "answer", sample.answer, answer)


def render(
    tokenizer: PreTrainedTokenizerBase,
    sample: Sample,
    messages: list[dict[str, Any]],
    template_kwargs: dict[str, Any],
    add_generation_prompt: bool,
) -> list[int]:
    """Token ids of messages by the base's chat template."""
    try:
        return tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=add_generation_prompt,
            tokenize=True,
            return_dict=False,
            **template_kwargs,
        )
    except Exception as error:
        # The error of a template may repeat a message of the sample.
        repeats = any(text and text in str(error) for text in contents(messages))
        reason = type(error).__name__ if repeats else describe(error)
        raise Failure(
            "proof",
            f"the base's chat template fails on the sample from {sample.origin}: {reason}; "
            "change the sample or take a base whose template allows it",
            sample.origin,
        ) from error


def contents(messages: list[dict[str, Any]]) -> list[str]:
    """The texts of messages."""
    return [str(message.get("content") or "") for message in messages]


def end_of_turn(tokenizer: PreTrainedTokenizerBase, whole: list[int], text: str) -> int:
    """The token that the template puts after an answer; the end-of-sequence token if the answer is not found."""
    before, found, after = tokenizer.decode(whole).rpartition(text.strip())
    following = tokenizer.encode(after, add_special_tokens=False) if found and before else []
    return following[0] if following else tokenizer.eos_token_id


def difference(tokenizer: PreTrainedTokenizerBase, sample: Sample, part: str, ours: list[int], theirs: list[int]) -> Failure:
    """The first place that differs, counted from 0, and the token that each side has there."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    at = next((index for index, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
    return Failure(
        "proof",
        f"the {part} of the sample from {sample.origin} differs at token {at}: the run, with {len(ours)} tokens, has "
        f"{token_at(tokenizer, ours, at)} there, the base's own tokenizer and chat template, with {len(theirs)}, give "
        f"{token_at(tokenizer, theirs, at)}; use the base's own template and tokenizer for this role",
        sample.origin,
    )


def token_at(tokenizer: PreTrainedTokenizerBase, tokens: list[int], at: int) -> str:
    """The id of the token at a place, and the beginning of its text; `none` behind the last one."""
    if at >= len(tokens):
        return "none"
    text = tokenizer.decode([tokens[at]])
    cut = text if len(text) <= MAX_QUOTED_CHARS else text[: MAX_QUOTED_CHARS - 1] + "…"
    return f"{tokens[at]} ({cut!r})"
