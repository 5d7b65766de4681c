"""How a run ends early: a failure with words for the user, or a pause that SIGTERM asked for."""

import errno
from typing import Literal

Kind = Literal["proof", "memory", "disk", "settings", "base", "other"]

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
# What libraries in other languages say of it; torch's writer of files does not tell why the system refused.
FULL_DISK_TEXTS = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed writing file")


class Failure(Exception):
    """A run cannot go on; the message is one sentence: what, where, what to do."""

    def __init__(self, kind: Kind, message: str, origin: str | None = None) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.message = message
        self.origin = origin


class Paused(BaseException):
    """SIGTERM came; a BaseException, so that no library's `except Exception` swallows it."""


def describe(error: BaseException) -> str:
    """An exception as a fragment of a sentence: its type and the first line of its text, at most 300 characters."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def from_exception(error: Exception) -> Failure:
    """The failure that an exception of a library stands for."""
    if isinstance(error, Failure):
        return error
    if is_out_of_memory(error):
        return Failure(
            "memory",
            f"memory ran out while training ({describe(error)}); lower `batch` of `schedule` first, then `rank` of `lora`, "
            "leave out the longest samples, or take a smaller base",
        )
    if is_full_disk(error):
        return Failure("disk", "the disk or its quota is full; make room, and the training goes on from its last checkpoint")
    return Failure("other", f"the training ended with {describe(error)}; the daemon's log has the traceback at level debug")


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory of the host or of the device ran out; torch's CPU allocator raises a plain RuntimeError."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text)


def is_full_disk(error: BaseException) -> bool:
    """Whether a disk or a quota is full, by the error or what it came from."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    return any(says_full_disk(cause) for cause in causes)


def says_full_disk(error: BaseException) -> bool:
    """Whether an error by itself says that a disk or a quota is full."""
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return True
    return any(text in str(error) for text in FULL_DISK_TEXTS)
