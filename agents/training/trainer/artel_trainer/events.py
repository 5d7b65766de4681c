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

    def write(self, event: str, **fields: JsonValue) -> None:
        """Appends one event with the present time in seconds since 1970."""
        line = json.dumps({"event": event, "at": time.time(), **fields}, ensure_ascii=False, allow_nan=False)
        rest = memoryview(line.encode() + b"\n")
        while rest:
            rest = rest[os.write(self._file, rest) :]


def cut_torn_line(path: Path) -> None:
    """Removes an unfinished last line, which a full disk or a crash of the machine leaves."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
