"""The command line: `artel_trainer train RUN`."""

import shutil
import sys
import traceback
from pathlib import Path

from artel_trainer import process
from artel_trainer.checkpoints import Checkpoints, step_of
from artel_trainer.events import EventLog
from artel_trainer.failure import Failure, Paused, from_exception
from artel_trainer.run_directory import RunDirectory

USAGE = "usage: python -m artel_trainer train RUN"


def main(arguments: list[str]) -> int:
    """Prepares the process and runs the training; returns the exit code."""
    if len(arguments) != 2 or arguments[0] != "train":
        print(USAGE, file=sys.stderr)
        return process.EXIT_USAGE
    process.send_stdout_to_stderr()
    process.lower_priority()
    process.end_with_parent()
    return run_training(RunDirectory(Path(arguments[1]).absolute()))


def run_training(run: RunDirectory) -> int:
    """Trains on a run's directory and turns every ending into an event and an exit code."""
    stop = process.Stop()
    try:
        events = EventLog(run.events)
    except OSError as error:
        print(f"{run.events} cannot be written: {error}; give a run's directory that Artel wrote", file=sys.stderr)
        return process.EXIT_FAILED
    try:
        return train_or_pause(run, events, stop)
    except Exception as error:
        traceback.print_exc()
        failure = from_exception(error)
        if failure.kind == "disk":
            # This makes room for the event.
            Checkpoints(run.checkpoints).remove_unfinished()
            shutil.rmtree(run.adapter_in_writing, ignore_errors=True)
        write_failed(events, failure)
        return process.EXIT_FAILED


def train_or_pause(run: RunDirectory, events: EventLog, stop: process.Stop) -> int:
    """Trains to the end or to a SIGTERM."""
    try:
        stop.install()
        train(run, events, stop)
        return process.EXIT_FINISHED
    except Paused:
        newest = Checkpoints(run.checkpoints).newest()
        events.write("paused", step=step_of(newest) if newest else 0)
        return process.EXIT_PAUSED


def train(run: RunDirectory, events: EventLog, stop: process.Stop) -> None:
    """Reads the settings before the libraries are imported, since they read the environment on import."""
    settings = run.settings()
    process.set_environment(settings.threads)
    from artel_trainer import training

    training.train(run, settings, events, stop)


def write_failed(events: EventLog, failure: Failure) -> None:
    """Writes the event `failed` if it can be written; `origin` only where the failure has one."""
    origin = {"origin": failure.origin} if failure.origin is not None else {}
    try:
        events.write("failed", kind=failure.kind, message=failure.message, **origin)
    except OSError as error:
        # On a full disk there may be no place for the event either; the exit code and this line are what is left.
        print(f"the event of the failure cannot be written: {error}", file=sys.stderr)
