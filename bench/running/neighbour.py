"""A neighbour: other work on the machine, to see what it does to what is measured. Has no torch."""

import multiprocessing
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

BURST_S = 0.3
"""For which it keeps a core busy, and for which it then sleeps."""
START_S = 60.0
"""In which its process must begin."""


@contextmanager
def busy() -> Iterator[int]:
    """Another process that keeps a core busy half of the time; yields its number."""
    context = multiprocessing.get_context("spawn")
    begun = context.Event()
    neighbour = context.Process(target=_bursts, args=(begun,), daemon=True)
    neighbour.start()
    try:
        if not begun.wait(START_S) or neighbour.pid is None:
            raise RuntimeError(f"the neighbour did not begin within {START_S:g} s")
        yield neighbour.pid
    finally:
        neighbour.kill()
        neighbour.join()


def _bursts(begun: Any) -> None:
    """Until the process that wanted it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    parent = multiprocessing.parent_process()
    begun.set()
    while parent is not None and parent.is_alive():
        end = time.monotonic() + BURST_S
        while time.monotonic() < end:
            pass
        time.sleep(BURST_S)
