"""What a case does, operation by operation, without doing it: on tensors that have no values.

Every operation is written down with its multiply-adds and the bytes that it reads and writes, and
what is allocated and freed is followed, so that the peak is known before there is any memory. The
fused kernels are launched as on a GPU of compute capability 9.0, and written down too.
"""

import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from lossbench.bench.cases.calls import case_call, create_loss
from lossbench.bench.cases.case import Case
from lossbench.bench.cases.inputs import draw_on
from lossbench.bench.counting.compiled import simulated
from lossbench.bench.counting.operations import (
    Kind,
    Operation,
    bytes_of,
    is_lowered,
    kind_of,
    launch_of,
    layout_of,
    operation_of,
    shape_of,
    tensors_in,
)
from lossbench.bench.counting.recording import CAN_RECORD, Note, recorded, watched
from lossbench.kernels import configs
from lossbench.losses.devices import as_if_on, device_type

GENERATED, FUSED = "generated kernels", "fused kernels"
"""Whose products are counted, but not what they do to each element."""
_BETWEEN = (
    __name__, "torch._compile", "torch._dynamo.eval_frame", "torch._ops",
    "torch.utils.flop_counter",
)  # fmt: skip
"""Modules that are called between who calls an operation and here."""


@dataclass
class Trace:
    """What one evaluation of a case does.

    Attributes:
        operations: in the order in which they are done.
        held: bytes beyond the inputs, and the name of what was called, before and after each call.
        macs: multiply-adds that ``FlopCounterMode`` sees, if it was asked.
        saved_bytes: kept for the backward pass, beyond the inputs.
        uncounted: names of what was called whose arithmetic is not counted.
    """

    operations: list[Operation] = field(default_factory=list)
    held: list[tuple[int, str]] = field(default_factory=list)
    macs: int | None = None
    saved_bytes: int = 0
    uncounted: set[str] = field(default_factory=set)

    @property
    def elementwise(self) -> int:
        """Operations beside matrix products."""
        return sum(each.elementwise for each in self.operations)

    @property
    def transcendentals(self) -> int:
        """Exponentials, logarithms, roots and the like."""
        return sum(each.transcendentals for each in self.operations)

    @cached_property
    def kinds(self) -> Counter[Operation]:
        """How often each operation is done."""
        return Counter(self.operations)

    @property
    def peak_bytes(self) -> int:
        """Held at most."""
        return max((size for size, _ in self.held), default=0)

    @property
    def launches(self) -> int:
        """Operations."""
        return len(self.operations)

    @property
    def moved_bytes(self) -> int:
        """Read and written by all operations."""
        return sum(each.moved_bytes for each in self.operations)

    @property
    def executed_macs(self) -> int:
        """Multiply-adds of all operations, padding and recomputation among them."""
        return sum(each.macs for each in self.operations)


def trace(
    case: Case, counter: bool = False, run: bool = False, capability: str = configs.COUNTED,
    watch: Note | None = None,
) -> Trace:  # fmt: skip
    """Follow one evaluation of a case.

    Args:
        case: of any implementation but auto; compiled code only on a CPU, see
            ``bench.counting.compiled``.
        counter: let ``FlopCounterMode`` count as well, which takes time.
        run: really run it, for a third party's code that looks at values.
        capability: compute capability whose tile sizes the fused kernels are followed with.
        watch: is told of each launch of a fused kernel.
    """
    mode, device = _valueless(case) if not run else (nullcontext(), case.device)
    with mode, as_if_on(case.device):
        inputs = any_inputs(case, device)
        tracer = _Tracer(inputs, skips=not run)
        loss = create_loss(case, device)
        # not the module itself, whose calls FlopCounterMode hooks into
        call = case_call(case, getattr(loss, "forward", loss), inputs)
        saves = saved_tensors_hooks(tracer.save, lambda tensor: tensor)
        # the counter is told first: it knows what a custom op counts, not what is inside
        flops = FlopCounterMode(display=False) if counter else nullcontext()
        with (
            _compiled(case, tracer, device),
            watched(tracer.note_foreign) if run else _launches(case, tracer, capability, watch),
            tracer,
            flops,
            saves,
        ):
            call()
        if isinstance(flops, FlopCounterMode):
            tracer.found.macs = flops.get_total_flops() // 2
        return tracer.found


def follow(calls: Sequence[Callable[[], object]], live: Sequence[Tensor]) -> list[Trace]:
    """Follow calls one after another, on tensors of a ``FakeTensorMode`` that is on.

    Args:
        calls: what is done.
        live: tensors that were there before, which do not count as held.

    Returns:
        A trace of each call; what it holds includes what those before it left.
    """
    tracer = _Tracer(tuple(live), skips=False)
    traces = []
    with tracer, saved_tensors_hooks(tracer.save, lambda tensor: tensor):
        for call in calls:
            call()
            traces.append(tracer.found)
            tracer.found = Trace()
    return traces


def _valueless(case: Case) -> tuple[AbstractContextManager[Any], str]:
    """How to make tensors without values: meta tensors, which are quick, where they will do."""
    # autocast does not know them, and code that is not ours makes tensors of its own beside them
    needs_fakes = case.products == "bf16" or not case.has_cost_model
    return (FakeTensorMode(), "cpu") if needs_fakes else (nullcontext(), "meta")


def any_inputs(case: Case, device: str) -> tuple[Tensor, ...]:
    """What a case is given, of no particular values."""
    dtype = getattr(torch, case.dtype)
    return tuple(draw_on(device, each, dtype) for each in case.given)


class _Tracer(TorchDispatchMode):
    """Writes down what is dispatched.

    Args:
        inputs: live before the call, and not its own.
        skips: tensors have no values.
    """

    def __init__(self, inputs: tuple[Tensor, ...], skips: bool) -> None:
        super().__init__()
        self._skips = skips
        self.found = Trace()
        self._live = 0
        self._sizes = {each.untyped_storage()._cdata: 0 for each in inputs}
        self._watched: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._saved: set[int] = set()
        self._unsettled = False
        self._on_cuda = device_type(inputs[0]) == "cuda"

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # there is nothing to skip: it would only be imported

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.is_view:  # half of all calls; they do nothing
            return func(*args, **kwargs)
        kind = kind_of(func)
        if self._unsettled:
            self._settle(kind.name)
        if kind.host is not None:
            with self:
                return kind.host(*args, **kwargs)
        result, operation = self._do(kind, func, args, kwargs)
        # a reduction of 0 is none
        inside = bytes_of(args[0]) if kind.reduces and args[2:3] != (0,) else 0
        for tensor in tensors_in(result):
            self._hold(tensor, inside if kind.keeps else 0)
        # what is added up in place of its first part is not held beside it
        self._unsettled = kind.adds and _is_accumulation()
        if not self._unsettled:
            self._settle(kind.name, inside)
        if operation is not None:
            self.found.operations.append(operation)
        if not kind.is_counted and next(tensors_in(result), None) is not None:
            self.found.uncounted.add(kind.name.removeprefix("aten::"))
        return result

    def _do(
        self, kind: Kind, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, Operation | None]:
        """What an operation returns, and what it does.

        Without values it is looked up by its shapes, for which torch takes longest.
        """
        writes = self._skips and kind.written is not None
        if not (writes or (self._skips and kind.is_functional)):
            result = func(*args, **kwargs)
            return result, operation_of(func, kind, args, kwargs, result)
        key = (
            shape_of(args),
            shape_of(tuple(kwargs.items())),
            kind.formula and self._on_cuda and is_lowered(),
        )
        written: Any = (kwargs["out"] if kind.written else args[0]) if writes else None
        if key in kind.known:
            layout, operation = kind.known[key]
            return written if writes else torch.empty_strided(**layout, device="meta"), operation
        result = written if writes else func(*args, **kwargs)
        operation = operation_of(func, kind, args, kwargs, result)
        if writes or type(result) is Tensor:
            kind.known[key] = layout_of(result), operation
        return result, operation

    def save(self, tensor: Tensor) -> Tensor:
        """Note that a tensor is kept for the backward pass."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._saved:
            self._saved.add(key)
            self.found.saved_bytes += self._sizes.get(key, storage.nbytes())
        return tensor.detach()  # torch never lets go of a tensor that is returned as it is

    def note_generated(self, arguments: Sequence[Any]) -> None:
        """Note the call of a kernel that a compiler generated."""
        moved = sum(map(bytes_of, tensors_in(list(arguments))))
        self.found.uncounted.add(GENERATED)
        self.found.operations.append(Operation(0, "", moved))

    def note_foreign(self, name: str, arguments: Sequence[Any]) -> None:
        """Note the launch of a kernel of a third party, of which only its tensors are known."""
        self.found.uncounted.add(name)
        moved = sum(map(bytes_of, tensors_in(list(arguments))))
        self.found.operations.append(Operation(0, "", moved))

    def note(self, kernel: Any, arguments: dict[str, Any], grid: tuple[int, ...]) -> None:
        """Note the launch of a fused kernel."""
        if not kernel.__module__.startswith("lossbench."):
            self.note_foreign(kernel.__name__, list(arguments.values()))
            return
        self.found.operations.append(launch_of(arguments, grid))
        self.found.uncounted.add(FUSED)

    def _settle(self, name: str, scratch_bytes: int = 0) -> None:
        self.found.held.append((self._live + scratch_bytes, name))

    def _hold(self, tensor: Tensor, at_least: int) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, max(storage.nbytes(), at_least)
        if key not in self._sizes:
            self._sizes[key] = size
            self._live += size
            self._watched[key] = weakref.ref(storage, partial(self._free, key, size))

    def _free(self, key: int, size: int, _: Any) -> None:
        del self._sizes[key], self._watched[key]
        self._saved.discard(key)  # the next storage may have its place
        self._live -= size


def _compiled(case: Case, tracer: _Tracer, device: str) -> AbstractContextManager[None]:
    """Follow what a compiler makes of the code.

    Raises:
        NotImplementedError: a device or mode for which it cannot be asked here.
    """
    if case.implementation != "compiled" or case.contender:
        return nullcontext()
    if case.device != "cpu" or case.options:
        raise NotImplementedError("a compiler can be asked only for a CPU, in its default mode")
    return simulated(tracer.note_generated, device)


@contextmanager
def _launches(case: Case, tracer: _Tracer, capability: str, watch: Note | None) -> Iterator[None]:
    """Follow the launches of the fused kernels."""
    if not CAN_RECORD:
        yield
        return
    precision = str(case.options.get("precision", "ieee"))
    kind = configs.kind_of(getattr(torch, case.dtype), precision)

    def note(kernel: Any, arguments: dict[str, Any], grid: tuple[int, ...]) -> None:
        tracer.note(kernel, arguments, grid)
        if watch is not None:
            watch(kernel, arguments, grid)

    with recorded(configs.table()[capability][kind], note):
        yield


def _is_accumulation() -> bool:
    """Whether autograd's engine adds up the gradients of a tensor that was used twice.

    It adds in place where nobody else holds the first, but not while it is followed.
    """
    frame: Any = sys._getframe()
    while frame.f_globals["__name__"] in _BETWEEN:
        frame = frame.f_back
    return bool(frame.f_code.co_name == "_engine_run_backward")
