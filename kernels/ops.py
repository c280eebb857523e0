"""What the custom ops of this package share: checks at their edge, and how they are counted."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lossbench.kernels import configs
from lossbench.kernels.language import why_unsupported
from lossbench.losses.naming import pick

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FVCORE_HANDLES: dict[str, Callable[[Any, Any], int]] = {}
"""Name of an op -> how fvcore counts it: MACs from the inputs and outputs of a traced node."""
HOSTS: dict[Any, Callable[..., Any]] = {}
"""Op -> the Python function that it runs, which allocates, launches kernels and calls libraries."""


def require_support(z: Tensor, strategy: str | None, precision: str = "ieee") -> None:
    """Check what the kernels are asked to do.

    Raises:
        NotImplementedError: a device or dtype that they do not run on.
        ValueError: an unknown strategy or precision.
    """
    if strategy is not None:
        pick("strategy", strategy, configs.STRATEGIES)
    pick("precision", precision, configs.PRECISIONS)
    if z.dtype not in DTYPES:
        raise NotImplementedError(
            f"the kernels take float32, bfloat16 or float16, not {z.dtype}; "
            "use implementation='gram'"
        )
    # tensors without values are only counted; compilers and counters see those
    if z.device.type != "meta" and not isinstance(z, torch._subclasses.FakeTensor):
        reason = why_unsupported(z.device)
        if reason is not None:
            raise NotImplementedError(reason)


def on_device(z: Tensor) -> AbstractContextManager[Any]:
    """Kernels start on the current device, which need not be that of the tensors."""
    return torch.cuda.device(z.device) if z.is_cuda else nullcontext()


def register_macs(op: Any, macs: Callable[..., int], constants: Sequence[int] = ()) -> None:
    """Tell ``FlopCounterMode`` and fvcore what an op costs.

    Args:
        op: a custom op.
        macs: (shape of the first input, or shapes if it is a list; *some inputs) -> multiply-adds.
        constants: positions of those inputs.
    """

    def flops(*inputs: Any, out_shape: Any = None, **_: Any) -> int:
        return 2 * macs(inputs[0], *(inputs[position] for position in constants))

    def fvcore(inputs: Any, outputs: Any) -> int:
        from fvcore.nn.jit_handles import get_shape

        node = inputs[0].node()
        is_list = node.kind() == "prim::ListConstruct"
        shapes = [get_shape(each) for each in node.inputs()] if is_list else get_shape(inputs[0])
        return macs(shapes, *(inputs[position].toIValue() for position in constants))

    HOSTS[op._opoverload] = op._init_fn
    register_flop_formula(op._opoverload.overloadpacket)(flops)
    FVCORE_HANDLES[op._opoverload.name().removesuffix(".default")] = fvcore
