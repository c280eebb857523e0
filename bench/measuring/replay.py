"""Small cases on a GPU are replayed as a graph: launches from Python would be all that is timed."""

from collections.abc import Callable
from typing import Any

import torch

from lossbench.bench.cases.case import Case

GRAPHED_BATCH = 256
"""Up to this batch, launches take longer than the work of a fused loss."""
WARM_UPS = 3


def replays(case: Case) -> bool:
    """Whether a case is timed by graph replay."""
    return case.device == "cuda" and case.loss_batch <= GRAPHED_BATCH


def captured(call: Callable[[], Any]) -> Callable[[], Any]:
    """A call as one CUDA graph; its replays return what the captured call returned.

    Raises:
        RuntimeError: the call does something that a graph cannot hold, such as waiting for a value.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay() -> Any:
        graph.replay()
        return result

    return replay
