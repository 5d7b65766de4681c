"""The file of events that Artel follows: `events.jsonl`, one JSON object a line."""

import json
import os
import time
from pathlib import Path

JsonValue = str | int | float | None | dict[str, str]


class EventLog:
    """Appends events; each line is written whole by one call, so that a reader never sees two halves mixed."""

    def __init__(self, path: Path) -> None:
        cut_torn_line(path)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._is_torn = False

    def write(self, event: str, **fields: JsonValue) -> None:
        """Appends one event with the present time in seconds since 1970; an OSError may leave a part of it."""
        line = json.dumps({"event": event, "at": time.time(), **fields}, ensure_ascii=False, allow_nan=False)
        # A reader has seen the part of a line that a full disk left, so that it cannot be taken back; it is no event.
        rest = memoryview((b"\n" if self._is_torn else b"") + line.encode() + b"\n")
        self._is_torn = True
        while rest:
            rest = rest[os.write(self._file, rest) :]
        self._is_torn = False


def cut_torn_line(path: Path) -> None:
    """Removes an unfinished last line, which a full disk or a crash of the machine leaves."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
