"""A child process that counts and measures cases, so that none can take the sweep down.

A case that runs out of memory, crashes or hangs ends its process; the next case gets a new one.
"""

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from lossbench.bench.cases.case import Case
from lossbench.bench.records.failures import guarded
from lossbench.losses.auto import available_bytes

SHARE_OF_MEMORY = 0.9
PATIENCE_S = 1.0
"""How long a child may take to end by itself, and clear up what compilers leave, when idle."""


class Worker:
    """Evaluates cases in a child process.

    Args:
        device: "cpu" or "cuda".
        memory_bytes: what a case may allocate on the CPU; default: most of what is free.
        device_bytes: memory of a device that is emulated, inputs included, but not the program.
    """

    def __init__(
        self, device: str, memory_bytes: int | None = None, device_bytes: int | None = None
    ) -> None:
        self._device = device
        self._memory_bytes = memory_bytes
        self._device_bytes = device_bytes
        self._process: Any = None

    def evaluate(self, case: Case, timeout_s: float, **how: Any) -> dict[str, Any]:
        """Count and measure a case; whatever happens becomes the record's ``status``.

        Args:
            case: what to evaluate.
            timeout_s: seconds after which the case is given up.
            **how: ``measure=False`` to count only; ``ceilings``, which
                ``count_and_predict`` takes;
                ``once=True`` for a single call; options of ``measure``.
        """
        return self._ask(("evaluate", case, how), timeout_s, parts=2)

    def compare(
        self,
        cases: Sequence[Case],
        rounds: Sequence[int],
        timeout_s: float,
        scales: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        """Time cases in turn.

        Args:
            cases: what to compare; all of one device.
            rounds: how often each case is visited.
            timeout_s: seconds after which the comparison is given up.
            scales: as ``bench.measuring.measure.compare`` takes them.

        Returns:
            What ``bench.measuring.measure.compare`` returns, or else ``status`` and ``reason``.
        """
        return self._ask(("compare", cases, rounds, scales), timeout_s, parts=1)

    def sample_again(self, case: Case, count: int, timeout_s: float) -> dict[str, Any]:
        """``bench.measuring.measure.sample_again``, or else ``status`` and ``reason``."""
        return self._ask(("sample", case, count), timeout_s, parts=1)

    def prepare(self, cases: Sequence[Case], timeout_s: float) -> dict[str, Any]:
        """``bench.measuring.ahead.compile_ahead`` in the child process."""
        return self._ask(("prepare", cases), timeout_s, parts=1)

    def sample_noise(self, case: Case, slowdown: float, timeout_s: float) -> dict[str, Any]:
        """``bench.measuring.sessions.sessions`` in the child process."""
        return self._ask(("noise", case, slowdown), timeout_s, parts=1)

    def _ask(self, task: tuple[Any, ...], timeout_s: float, parts: int) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        try:
            self._start()
            self._log.truncate(0)  # what an earlier task printed is not the reason of this one
            self._connection.send(task)
            for part in self._receive(timeout_s, parts):
                fields.update(part)
        except TimeoutError:
            self.stop()
            fields.update(status="timeout", reason=f"not finished after {timeout_s:g} s")
        except (EOFError, OSError):
            fields.update(self._post_mortem())
        return fields

    def stop(self) -> None:
        """End the child process."""
        if self._process is not None:
            self._connection.close()
            self._process.join(PATIENCE_S)
            self._process.kill()
            self._end()

    def _end(self) -> tuple[int, str]:
        """Clear up after the child; return its exit code and what it printed."""
        process, self._process = self._process, None
        process.join()
        self._connection.close()
        printed = Path(self._log.name).read_text(errors="replace")
        self._log.close()
        return process.exitcode, printed

    def _start(self) -> None:
        if self._process is not None:
            return
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._log = tempfile.NamedTemporaryFile()  # noqa: SIM115 - lives as long as the process
        limits = (self._memory_bytes, self._device_bytes)
        arguments = (theirs, self._log.name, self._device, *limits)
        process = context.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        self._process = process
        theirs.close()

    def _receive(self, timeout_s: float, parts: int) -> Iterator[dict[str, Any]]:
        """What the child sends: of a case its counts, then its measurement."""
        end = time.monotonic() + timeout_s
        for _ in range(parts):
            if not self._connection.poll(max(0, end - time.monotonic())):
                raise TimeoutError
            yield self._connection.recv()

    def _post_mortem(self) -> dict[str, Any]:
        code, printed = self._end()
        if code == -signal.SIGKILL:
            return {"status": "oom", "reason": "killed by the system, most likely for its memory"}
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        last = "".join(printed.strip().splitlines()[-1:])
        status = "oom" if "MemoryError" in last else "error"
        return {"status": status, "reason": f"process ended with {name}: {last}".rstrip(": ")}


def _serve(
    connection: Connection,
    log: str,
    device: str,
    memory_bytes: int | None,
    device_bytes: int | None,
) -> None:
    """Main loop of the child: a task in; its results out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _redirect_output(log)
    if sys.platform == "linux":
        # As in any script. Locks that libraries make (tqdm has one) then have no name: those of a
        # child that is killed would be reported as leaked, on the terminal.
        multiprocessing.set_start_method("fork", force=True)
    if device == "cpu":
        # The compiler's own worker processes would outlive a child that is killed; those for a GPU,
        # whose code takes longest to compile, end when they see it gone.
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    if device_bytes is not None:
        from lossbench.bench.counting.counting import count
        from lossbench.bench.measuring.measure import measure  # noqa: F401
        from lossbench.bench.measuring.memory import emulate

        count(Case("smi", batch=4, dim=4))  # the program is all of what is imported, late too
        emulate(device, device_bytes)
    elif device == "cpu":
        _limit_memory(memory_bytes)

    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent wants no more
        while True:
            task, *arguments = connection.recv()
            for part in _TASKS[task](*arguments):
                connection.send(part)


def _evaluate(case: Case, how: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Counts, then the measurement."""
    from lossbench.bench.measuring.measure import measure, try_once
    from lossbench.bench.predicting.expected import count_and_predict

    wanted, once = how.pop("measure", True), how.pop("once", False)
    counts = guarded(count_and_predict, case, how.pop("ceilings", None))
    yield counts
    if not wanted or "status" in counts:
        yield {}
    else:
        yield guarded(try_once, case) if once else guarded(measure, case, **how)


def _compare(
    cases: Sequence[Case], rounds: Sequence[int], scales: Sequence[float] | None
) -> Iterator[dict[str, Any]]:
    """Samples of cases that are visited in turn."""
    from lossbench.bench.measuring.measure import compare

    yield guarded(compare, cases, rounds, scales)


def _sample(case: Case, count: int) -> Iterator[dict[str, Any]]:
    """Samples of a case at another moment."""
    from lossbench.bench.measuring.measure import sample_again

    yield guarded(sample_again, case, count)


def _prepare(cases: Sequence[Case]) -> Iterator[dict[str, Any]]:
    """How many kernels were compiled."""
    from lossbench.bench.measuring.ahead import compile_ahead

    yield guarded(lambda: {"kernels": compile_ahead(cases)})


def _noise(case: Case, slowdown: float) -> Iterator[dict[str, Any]]:
    """Samples of a case, of itself again and of a slowed copy."""
    from lossbench.bench.measuring.sessions import sessions

    yield guarded(sessions, case, slowdown)


_TASKS: dict[str, Any] = {
    "evaluate": _evaluate,
    "compare": _compare,
    "sample": _sample,
    "prepare": _prepare,
    "noise": _noise,
}


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _redirect_output(log: str) -> None:
    """Send what libraries print to a file: the terminal belongs to the progress bar."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())


def _limit_memory(memory_bytes: int | None) -> None:
    """Make an allocation that does not fit fail here, before the system kills a process."""
    if memory_bytes is None:
        memory_bytes = int(SHARE_OF_MEMORY * available_bytes())
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
