"""The ratio of two calls, in a way that survives noise: in pairs, on one thread."""

from collections.abc import Callable
from typing import Any

from lossbench.bench.comparing.moderation import Noise
from lossbench.bench.comparing.ratios import Ratio, ratio
from lossbench.bench.measuring.timing import make_timer, one_thread


def time_ratio(
    contender: Callable[[], Any], baseline: Callable[[], Any], device: str, pairs: int = 20
) -> Ratio:
    """Time two calls in the order A B B A, as the gates of ``pytest --benchmark`` do.

    On the CPU they run on one thread, less the time it spent waiting for a core: threads that wait
    for each other magnify a busy neighbour. The interval is of the trimmed mean over pairs: a
    slow spell that hits few of them moves nothing.
    """
    first, second = [], []
    with one_thread():
        timer = make_timer(device, alone=True)
        for call in (contender, baseline):
            call()  # warms up
        for number in range(pairs):
            order = (contender, baseline) if number % 2 == 0 else (baseline, contender)
            times = [timer(call)[0] for call in order]
            a, b = times if number % 2 == 0 else reversed(times)
            first.append(a)
            second.append(b)
    return ratio([first], [second], Noise())
