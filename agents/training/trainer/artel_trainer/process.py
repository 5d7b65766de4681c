"""What the trainer asks of its own process: offline, low priority, an end with its parent, SIGTERM, peak memory."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

from artel_trainer.failure import Paused

EXIT_FINISHED = 0
EXIT_PARENT_DIED = 1
EXIT_USAGE = 2
EXIT_FAILED = 3
EXIT_PAUSED = 4

LOWEST_NICE = 19

# A test on a busy machine sets this to 1; at the lowest priority it would wait for every other process.
KEEP_PRIORITY = "ARTEL_TRAINER_KEEP_PRIORITY"

# By default threads of OpenMP that wait spin. Beside other work, which this process must yield to, that made a step of two
# threads four times as long (measured on two busy cores).
WAIT_POLICY = "PASSIVE"

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "WANDB_MODE": "disabled",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def set_environment(threads: int) -> None:
    """Sets what the libraries read on import: no network, and how many threads compute."""
    os.environ.update(OFFLINE)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ.setdefault("OMP_WAIT_POLICY", WAIT_POLICY)


def send_stdout_to_stderr() -> None:
    """Stdout is unused: what a library prints goes to stderr."""
    os.dup2(2, 1)


def lower_priority() -> None:
    """Takes the lowest CPU priority; call it before any other thread exists, since Linux keeps it by thread."""
    if os.environ.get(KEEP_PRIORITY) == "1":
        return
    os.nice(LOWEST_NICE)
    for name in ("SCHED_IDLE", "SCHED_BATCH"):
        policy = getattr(os, name, None)
        if policy is None:
            continue
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, policy, os.sched_param(0))
            return


def end_with_parent(exit_now: Callable[[int], None] = os._exit) -> None:
    """Starts a thread that ends this process as soon as stdin is closed, which means that the daemon died."""
    threading.Thread(target=_wait_for_end_of_stdin, args=(exit_now,), name="stdin", daemon=True).start()


def _wait_for_end_of_stdin(exit_now: Callable[[int], None]) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    exit_now(EXIT_PARENT_DIED)


class Stop:
    """SIGTERM: raises `Paused` at once, or only marks the request while `defer` holds (within the training loop)."""

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False

    def install(self) -> None:
        """Takes over SIGTERM."""
        signal.signal(signal.SIGTERM, self._handle)

    def defer(self) -> None:
        """From here on the training loop looks at `requested` after each step."""
        self._deferred = True

    def stop_deferring(self) -> None:
        """The training loop has ended; a request that came within it is raised here."""
        self._deferred = False
        if self.requested:
            raise Paused

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.requested = True
        if not self._deferred:
            raise Paused


def peak_resident_bytes() -> int:
    """The most memory that this process has held so far, in bytes."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource
    import sys

    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes
