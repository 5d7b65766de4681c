"""How failures are told, and what a full disk leaves. Nothing here needs torch."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from artel_trainer import checkpoints, cli, events
from artel_trainer.checkpoints import Checkpoints
from artel_trainer.events import EventLog
from artel_trainer.failure import Paused, from_exception
from artel_trainer.run_directory import RunDirectory

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """A run's directory with a whole checkpoint, and another and an adapter that are being written."""
    run = RunDirectory(tmp_path)
    (run.checkpoints / "step-3").mkdir(parents=True)
    (run.checkpoints / "writing" / "checkpoint-4").mkdir(parents=True)
    run.adapter_in_writing.mkdir()
    return run


class FullDisk:
    """Stands for `os.write`: takes so many bytes and then no more."""

    def __init__(self, free_bytes: int) -> None:
        self.free_bytes = free_bytes

    def write(self, descriptor: int, data: memoryview) -> int:
        """Writes what fits."""
        if not self.free_bytes:
            raise FULL
        written = os.write(descriptor, data[: self.free_bytes])
        self.free_bytes -= written
        return written

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)


def lines(run: RunDirectory) -> list[str]:
    """The lines of the file of events."""
    return run.events.read_text().splitlines()


def ending(monkeypatch: pytest.MonkeyPatch, run: RunDirectory, train: Callable[..., None]) -> int:
    """The exit code of a run whose training is this."""
    monkeypatch.setattr(cli, "train", train)
    return cli.run_training(run)


def raising(error: BaseException) -> Callable[..., None]:
    """A training that ends with an error."""

    def train(*_arguments: object) -> None:
        raise error

    return train


def caused_by(cause: Exception, error: Exception) -> Exception:
    """An error that was raised while another was handled."""
    error.__context__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        caused_by(
            RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file data/0: file write failed"),
            RuntimeError("[enforce fail] . unexpected pos 704 vs 598"),
        ),
    ],
    ids=["errno", "quota", "safetensors", "torch"],
)
def test_a_full_disk_is_told_and_leaves_the_last_checkpoint(
    monkeypatch: pytest.MonkeyPatch, directory: RunDirectory, error: Exception
) -> None:
    assert ending(monkeypatch, directory, raising(error)) == 3
    [failed] = map(json.loads, lines(directory))
    assert (failed["event"], failed["kind"]) == ("failed", "disk")
    assert os.listdir(directory.checkpoints) == ["step-3"] and not directory.adapter_in_writing.exists()


def test_a_half_written_event_spoils_no_other(monkeypatch: pytest.MonkeyPatch, directory: RunDirectory) -> None:
    def train(_run: object, _settings: object, log: EventLog) -> None:
        log.write("checked", samples=1)
        monkeypatch.setattr(events, "os", FullDisk(9))
        try:
            log.write("checked", samples=2)
        finally:
            monkeypatch.setattr(events, "os", os)

    assert ending(monkeypatch, directory, lambda run, log, _stop: train(run, None, log)) == 3
    first, half, failed = lines(directory)
    assert json.loads(first)["samples"] == 1 and len(half) == 9
    assert json.loads(failed)["kind"] == "disk"


def test_a_run_whose_last_event_cannot_be_written_ends_without_a_reason(
    monkeypatch: pytest.MonkeyPatch, directory: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(*_arguments: object) -> None:
        monkeypatch.setattr(events, "os", FullDisk(0))
        raise FULL

    assert ending(monkeypatch, directory, train) == 3 and lines(directory) == []
    assert "the event of the failure cannot be written: [Errno 28]" in capsys.readouterr().err


def test_a_pause_that_cannot_be_told_is_a_full_disk(monkeypatch: pytest.MonkeyPatch, directory: RunDirectory) -> None:
    def train(*_arguments: object) -> None:
        monkeypatch.setattr(events, "os", FullDisk(5))
        raise Paused

    assert ending(monkeypatch, directory, train) == 3 and len(lines(directory)[0]) == 5


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    monkeypatch: pytest.MonkeyPatch, directory: RunDirectory
) -> None:
    def fail(_path: Path) -> None:
        raise FULL

    kept = Checkpoints(directory.checkpoints)
    written = kept.staging / "checkpoint-4"
    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(checkpoints, "flush_to_disk", fail)
        kept.commit(written, 4)
    assert kept.newest() == directory.checkpoints / "step-3"

    # A whole one of the same step stays.
    for step in (3, 4):
        written = kept.staging / f"checkpoint-{step}"
        written.mkdir(parents=True)
        (written / "of_now").touch()
        kept.commit(written, step)
        assert os.listdir(kept.staging) == [] and kept.newest() == directory.checkpoints / f"step-{step}"
        assert (directory.checkpoints / f"step-{step}" / "of_now").exists() == (step == 4)


def test_memory_is_told_from_other_failures() -> None:
    assert from_exception(MemoryError()).kind == "memory"
    assert from_exception(RuntimeError("DefaultCPUAllocator: can't allocate memory")).kind == "memory"
    assert "`batch`" in from_exception(MemoryError()).message
    assert from_exception(KeyError("x")).kind == "other"
    assert from_exception(OSError(errno.EACCES, "Permission denied")).kind == "other"
    assert "\n" not in from_exception(ValueError("a\nb")).message
