"""Checkpoints on disk: written beside the last one, put in its place by one rename."""

import os
import shutil
from pathlib import Path

STEP_PREFIX = "step-"


class Checkpoints:
    """The directory of checkpoints of a run.

    A checkpoint is written into `writing/` and renamed to `step-N` when all of it is on disk; so a directory `step-N` is
    always whole. One whole checkpoint is kept, and a second exists only while it is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.staging = root / "writing"

    def newest(self) -> Path | None:
        """The whole checkpoint with the most steps; removes what a killed run left unfinished."""
        self.remove_unfinished()
        whole = self._whole()
        return whole[-1] if whole else None

    def remove_unfinished(self) -> None:
        """Removes what is written of a checkpoint, and leaves whole ones."""
        shutil.rmtree(self.staging, ignore_errors=True)

    def commit(self, written: Path, step: int) -> None:
        """Makes a directory below `staging` the checkpoint of a step and then removes all others; a failure leaves them."""
        place = self.root / f"{STEP_PREFIX}{step}"
        if place.exists():
            # Of the same step, and whole: without it there would be none for a moment.
            shutil.rmtree(written)
            return
        for path in written.rglob("*"):
            flush_to_disk(path)
        flush_to_disk(written)
        written.rename(place)
        flush_to_disk(self.root)
        for path in self._whole():
            if path != place:
                shutil.rmtree(path)

    def _whole(self) -> list[Path]:
        return sorted(self.root.glob(f"{STEP_PREFIX}*"), key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was taken."""
    return int(checkpoint.name.removeprefix(STEP_PREFIX))


def flush_to_disk(path: Path) -> None:
    """Waits until a file or a directory's entries are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
