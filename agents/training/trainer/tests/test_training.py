"""A training from its directory to an adapter, with breaks."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import WAIT_SECONDS, Json, Run

STEPS = 6


@pytest.fixture(scope="module")
def whole(pristine: Path, tmp_path_factory: pytest.TempPathFactory, processes: object) -> Run:
    """A training that nothing interrupts."""
    import shutil

    root = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(pristine, root)
    run = Run(root, processes)
    assert run.finish() == 0, (root / "stderr.txt").read_text()[-2000:]
    return run


def test_events_come_in_the_order_of_the_contract(whole: Run) -> None:
    assert whole.names() == [
        "started",
        "checked",
        "forecast",
        "evaluated",
        *["step"] * STEPS,
        "checkpoint",
        "evaluated",
        "finished",
    ]
    started = whole.last("started")
    assert started["device"] == "cpu" and started["resumed_step"] == 0
    assert set(started["versions"]) == {"torch", "transformers", "peft", "trl", "accelerate", "python"}
    assert 0 < started["trainable"] < started["parameters"]
    assert whole.last("checked")["samples"] == 13
    assert whole.last("forecast")["steps"] == STEPS and whole.last("forecast")["peak_bytes"] > 1 << 20


def test_steps_count_samples_and_tokens(whole: Run) -> None:
    steps = whole.all("step")
    lines = [json.loads(line) for line in (whole.root / "train.jsonl").read_text().splitlines()]
    tokens = sum(len(line["prompt"]) + len(line["answer"]) for line in lines)
    assert [step["samples"] for step in steps] == [4, 4, 2, 4, 4, 2]
    assert sum(step["tokens"] for step in steps[:3]) == sum(step["tokens"] for step in steps[3:]) == tokens
    assert [step["steps"] for step in steps] == [STEPS] * STEPS and steps[-1]["epoch"] == 2.0


def test_loss_on_held_out_answers_falls(whole: Run) -> None:
    before, after = whole.all("evaluated")
    lines = [json.loads(line) for line in (whole.root / "held_out.jsonl").read_text().splitlines()]
    assert (before["step"], after["step"]) == (0, STEPS)
    assert before["tokens"] == after["tokens"] == sum(len(line["answer"]) for line in lines)
    assert after["loss"] < before["loss"] - 0.1


def test_first_evaluation_is_the_mean_over_answer_tokens_of_the_base(whole: Run, base: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    total, tokens = 0.0, 0
    for line in (whole.root / "held_out.jsonl").read_text().splitlines():
        sample = json.loads(line)
        with torch.no_grad():
            logits = model(torch.tensor([sample["prompt"] + sample["answer"]])).logits[0].log_softmax(-1)
        for at, token in enumerate(sample["answer"], len(sample["prompt"]) - 1):
            total -= logits[at, token].item()
            tokens += 1
    assert math.isclose(whole.all("evaluated")[0]["loss"], total / tokens, rel_tol=1e-4)


def test_adapter_is_f32_and_names_no_path(whole: Run, base: Path) -> None:
    from safetensors import safe_open

    adapter = whole.root / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert sorted(os.listdir(adapter)) == ["adapter_config.json", "adapter_model.safetensors"]
    assert config["base_model_name_or_path"] == base.name and str(base.parent) not in json.dumps(config)
    assert config["r"] == 4 and config["lora_alpha"] == 8
    with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
        names = list(file.keys())
        assert {file.get_slice(name).get_dtype() for name in names} == {"F32"}
    assert len(names) == 2 * 2 * 7 and not any("lm_head" in name for name in names)


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(whole: Run, run: Run) -> None:
    run.change(lambda data: data.update(checkpoint_seconds=0)).start(hold=("checkpoint", 4))
    run.until("checkpoint", 4)
    assert run.kill() == -signal.SIGKILL
    assert [path.name for path in (run.root / "checkpoints").glob("step-*")] == ["step-4"]
    (run.root / "checkpoints" / "writing" / "checkpoint-99").mkdir(parents=True, exist_ok=True)
    with open(run.root / "events.jsonl", "a") as events:
        events.write('{"event": "st')
    assert run.finish() == 0
    assert run.last("started")["resumed_step"] == 4
    losses = {step["step"]: step["loss"] for step in run.all("step")}
    assert losses == {step["step"]: step["loss"] for step in whole.all("step")}
    assert run.adapter() == whole.adapter()


def test_a_paused_run_goes_on_and_ends_with_the_same_weights(whole: Run, run: Run) -> None:
    run.start(hold=("step", 2)).until("step", 2)
    run.signal(signal.SIGTERM)
    assert run.wait() == 4
    paused = run.last("paused")["step"]
    assert 2 <= paused < STEPS
    assert run.names()[-2:] == ["checkpoint", "paused"] and run.last("checkpoint")["step"] == paused
    assert run.finish() == 0
    assert run.last("started")["resumed_step"] == paused
    assert run.adapter() == whole.adapter()


def test_a_pause_before_the_first_step_needs_no_checkpoint(run: Run) -> None:
    run.start(hold=("started", 1)).until("started")
    run.signal(signal.SIGTERM)
    assert run.wait() == 4 and run.last("paused")["step"] == 0


def test_the_command_ends_with_its_parent(pristine: Path, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "run"
    shutil.copytree(pristine, root)
    command = [sys.executable, "-m", "artel_trainer", "train", str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(WAIT_SECONDS) == 1


def _bad(change: Json) -> None:
    change["schedule"]["epochs"] = 0


def test_settings_out_of_range_fail_in_one_sentence(run: Run) -> None:
    assert run.change(_bad).finish() == 3
    failed = run.last("failed")
    assert failed["kind"] == "settings" and "epochs" in failed["message"] and "origin" not in failed


def test_a_base_that_transformers_cannot_read_fails_as_base(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run.change(lambda data: data.update(base={"checkpoint": str(tmp_path / "empty")})).finish() == 3
    assert run.last("failed")["kind"] == "base"


def test_targets_that_the_base_lacks_fail_as_settings(run: Run) -> None:
    assert run.change(lambda data: data["lora"].update(targets=["no_such_layer"])).finish() == 3
    assert run.last("failed")["kind"] == "settings" and "`targets` of `lora`" in run.last("failed")["message"]
