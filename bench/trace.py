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
from functools import cache, cached_property, partial
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from bench.calls import case_call, create_loss
from bench.case import Case
from bench.compiled import simulated
from bench.recording import CAN_RECORD, recorded
from kernels import configs
from kernels.ops import HOSTS
from losses.devices import as_if_on, device_type

CAPABILITY = "90"
"""Whose tile sizes the fused kernels are followed with."""
NO_WORK = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh"}
_BETWEEN = (
    __name__, "torch._compile", "torch._dynamo.eval_frame", "torch._ops",
    "torch.utils.flop_counter",
)  # fmt: skip
"""Modules that are called between who calls an operation and here."""
OVERWRITES = {"copy_", "fill_", "zero_", "normal_"}
"""What these write over they do not read."""
REDUCES = {"mse_loss", "smooth_l1_loss", "huber_loss"}
"""These make a tensor of the shape of their inputs and reduce it, in one call."""
_COUNTED_AS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
        torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward:
        torch.ops.aten._scaled_dot_product_flash_attention_backward,
}  # fmt: skip
"""Matrix products that ``FlopCounterMode`` does not know, as others of the same shapes."""
KEEPS = {"mse_loss", "smooth_l1_loss"}
"""What these return keeps the memory of a tensor of the shape of their inputs."""


class Operation(NamedTuple):
    """Work that is done at once.

    Attributes:
        macs: multiply-adds of a matrix product, else 0.
        precision: of its operands: the name of a dtype, or "tf32".
        moved_bytes: read and written.
    """

    macs: int
    precision: str
    moved_bytes: int


@dataclass
class Trace:
    """What one evaluation of a case does.

    Attributes:
        operations: in the order in which they are done.
        held: bytes beyond the inputs, and the name of what was called, before and after each call.
        macs: multiply-adds that ``FlopCounterMode`` sees, if it was asked.
        saved_bytes: kept for the backward pass, beyond the inputs.
    """

    operations: list[Operation] = field(default_factory=list)
    held: list[tuple[int, str]] = field(default_factory=list)
    macs: int | None = None
    saved_bytes: int = 0

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


def trace(case: Case, counter: bool = False, run: bool = False) -> Trace:
    """Follow one evaluation of a case.

    Args:
        case: of any implementation but auto; compiled code only on a CPU, see ``bench.compiled``.
        counter: let ``FlopCounterMode`` count as well, which takes time.
        run: really run it, for a third party's code that looks at values.
    """
    mode, device = _valueless(case) if not run else (nullcontext(), case.device)
    with mode, as_if_on(case.device):
        views = any_views(case, device)
        tracer = _Tracer(views, skips=not run)
        loss = create_loss(case)
        call = case_call(case, getattr(loss, "forward", loss), views)
        saves = saved_tensors_hooks(tracer.save, lambda tensor: tensor)
        # the counter is told first: it knows what a custom op counts, not what is inside
        flops = FlopCounterMode(display=False) if counter else nullcontext()
        with _compiled(case, tracer), _launches(case, tracer), tracer, flops, saves:
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
    needs_fakes = case.products == "bf16" or bool(case.contender)
    return (FakeTensorMode(), "cpu") if needs_fakes else (nullcontext(), "meta")


def any_views(case: Case, device: str) -> tuple[Tensor, Tensor]:
    """Views of the shape and dtype of a case, of no particular values."""
    shape, dtype = (case.loss_batch, case.dim), getattr(torch, case.dtype)
    z_a, z_b = (torch.randn(shape, dtype=dtype, device=device) for _ in "ab")
    return z_a, z_b


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
        kind = _kind(func)
        if self._unsettled:
            self._settle(kind.name)
        if kind.host is not None:
            with self:
                return kind.host(*args, **kwargs)
        result, operation = self._do(kind, func, args, kwargs)
        # a reduction of 0 is none
        inside = _bytes(args[0]) if kind.reduces and args[2:3] != (0,) else 0
        for tensor in _tensors(result):
            self._hold(tensor, inside if kind.keeps else 0)
        # what is added up in place of its first part is not held beside it
        self._unsettled = kind.adds and _is_accumulation()
        if not self._unsettled:
            self._settle(kind.name, inside)
        if operation is not None:
            self.found.operations.append(operation)
        return result

    def _do(
        self, kind: "_Kind", func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, Operation | None]:
        """What an operation returns, and what it does.

        Without values it is looked up by its shapes, for which torch takes longest.
        """
        writes = self._skips and kind.written is not None
        if not (writes or (self._skips and kind.is_functional)):
            result = func(*args, **kwargs)
            return result, _operation(kind, args, kwargs, result)
        key = (
            _shape_of(args),
            _shape_of(tuple(kwargs.items())),
            kind.formula and self._on_cuda and _lowered(),
        )
        written: Any = (kwargs["out"] if kind.written else args[0]) if writes else None
        if key in kind.known:
            layout, operation = kind.known[key]
            return written if writes else torch.empty_strided(**layout, device="meta"), operation
        result = written if writes else func(*args, **kwargs)
        operation = _operation(kind, args, kwargs, result)
        if writes or type(result) is Tensor:
            kind.known[key] = _layout(result), operation
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
        moved = sum(map(_bytes, _tensors(list(arguments))))
        self.found.operations.append(Operation(0, "", moved))

    def note(self, kernel: Any, arguments: dict[str, Any], grid: tuple[int, ...]) -> None:
        """Note the launch of a fused kernel."""
        self.found.operations.append(_launch(arguments, grid))

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


def _compiled(case: Case, tracer: _Tracer) -> AbstractContextManager[None]:
    """Follow what a compiler makes of the code.

    Raises:
        NotImplementedError: a device or mode for which it cannot be asked here.
    """
    if case.implementation != "compiled" or case.contender:
        return nullcontext()
    if case.device != "cpu" or case.options:
        raise NotImplementedError("a compiler can be asked only for a CPU, in its default mode")
    return simulated(tracer.note_generated)


@contextmanager
def _launches(case: Case, tracer: _Tracer) -> Iterator[None]:
    """Follow the launches of the fused kernels."""
    if not CAN_RECORD:
        yield
        return
    precision = str(case.options.get("precision", "ieee"))
    kind = configs.kind_of(getattr(torch, case.dtype), precision)
    with recorded(configs.table()[CAPABILITY][kind], tracer.note):
        yield


@dataclass(frozen=True)
class _Kind:
    """What an operator's schema says of it, looked up once.

    Attributes:
        name: with its namespace.
        host: of a fused kernel: launches it.
        formula: counts the floating-point operations of a matrix product.
        is_work: it computes or copies.
        is_functional: what it returns is new, and depends on the shapes that it is given.
        written: position of the tensor that it writes to and returns, if it does only that.
        overwrites: number of tensors, the first, that it writes over without reading them.
        reduces: it makes a tensor of the shape of its inputs and reduces it.
        keeps: what it returns keeps the memory of such a tensor.
        adds: autograd's engine may call it to add up gradients.
        known: shapes that it was called with -> layout of its result, and what it does.
    """

    name: str
    host: Any
    formula: Any
    is_work: bool
    is_functional: bool
    written: int | None
    overwrites: int
    reduces: bool
    keeps: bool
    adds: bool
    known: dict[Any, Any] = field(default_factory=dict)


@cache
def _kind(func: Any) -> _Kind:
    schema = func._schema
    space, _, name = schema.name.partition("::")
    return _Kind(
        name=schema.name,
        host=HOSTS.get(func) if CAN_RECORD else None,
        formula=flop_registry.get(_COUNTED_AS.get(func._overloadpacket, func._overloadpacket)),
        is_work=not (space == "prim" or name in NO_WORK),
        is_functional=not any(each.alias_info for each in (*schema.arguments, *schema.returns)),
        written=_written(func),
        overwrites=1 if name in OVERWRITES else 0,
        reduces=name in REDUCES,
        keeps=name in KEEPS,
        adds=func is torch.ops.aten.add.Tensor,
    )


def _written(func: Any) -> int | None:
    arguments = func._schema.arguments
    aliases = [each.alias_info for each in arguments]
    changed = [i for i, alias in enumerate(aliases) if alias and alias.is_write]
    if len(changed) != 1 or torch.Tag.inplace_view in func.tags:
        return None
    return changed[0] if changed == [0] or arguments[changed[0]].name == "out" else None


def _shape_of(given: Any) -> Any:
    """Arguments, with the shapes of tensors in their place."""
    if isinstance(given, Tensor):
        return (given.shape, given.stride(), given.dtype, given.device)
    if isinstance(given, (list, tuple)):
        return tuple([_shape_of(each) for each in given])
    return (given, given.__class__)  # 2 and 2.0 are equal


def _layout(tensor: Tensor) -> dict[str, Any]:
    return {"size": tensor.shape, "stride": tensor.stride(), "dtype": tensor.dtype}


def _tensors(found: Any) -> Iterator[Tensor]:
    """Those among arguments or results, which are tensors or lists of them, if they are any."""
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, (list, tuple)):
        for each in found:
            yield from _tensors(each)


def _is_accumulation() -> bool:
    """Whether autograd's engine adds up the gradients of a tensor that was used twice.

    It adds in place where nobody else holds the first, but not while it is followed.
    """
    frame: Any = sys._getframe()
    while frame.f_globals["__name__"] in _BETWEEN:
        frame = frame.f_back
    return bool(frame.f_code.co_name == "_engine_run_backward")


def _operation(
    kind: _Kind, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
) -> Operation | None:
    if not kind.is_work:
        return None
    out = kwargs.get("out")
    read = [each for each in _tensors((args, tuple(kwargs.values()))) if each is not out]
    # a list that is written to in place is not returned
    written = result if result is not None or kind.written is None else args[kind.written]
    moved = sum(map(_bytes, (*read[kind.overwrites :], *_tensors(written))))
    if kind.formula is None:
        return Operation(0, "", moved)
    # formulas do not know the dtype that a product may be asked for
    known = [each for each in args if not isinstance(each, torch.dtype)]
    macs = kind.formula(*known, **kwargs, out_val=result) // 2
    # what is added comes before the operands, statistics after them
    return Operation(macs, _precision(read[1]) if macs else "", moved)


def _bytes(tensor: Tensor) -> int:
    """Bytes of a tensor; of one that is expanded, those that are there."""
    size = tensor.numel() * tensor.element_size()
    return min(size, tensor.untyped_storage().nbytes())


def _lowered() -> bool:
    """Whether products of float32 operands are done in TF32 on a GPU."""
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")


def _precision(operand: Tensor) -> str:
    if operand.dtype == torch.float32 and _lowered() and device_type(operand) == "cuda":
        return "tf32"
    return str(operand.dtype).removeprefix("torch.")


def _launch(arguments: dict[str, Any], grid: tuple[int, ...]) -> Operation:
    """What a launch of ``kernels.tiles`` or ``kernels.normalise`` does."""
    moved = sum(map(_bytes, _tensors(list(arguments.values()))))
    if "PRECISION" not in arguments:
        return Operation(0, "", moved)
    z, block = arguments["z"], arguments["BLOCK"]
    down, across = arguments["tiles_down"], arguments["tiles_across"]
    moved += min(0, block * (down + across) * z.shape[1] * z.element_size() - _bytes(z))
    grams = 2 if arguments.get("KIND") == "cross" else 1
    # programs below the diagonal end at once
    tiles = down * (down + 1) // 2 if arguments["TRIANGULAR"] else down * across
    # a grid is of tiles, parts of the depth, operands
    macs = grams * tiles * prod(grid[2:]) * block**2 * z.shape[1]
    is_tf32 = z.dtype == torch.float32 and arguments["PRECISION"] == "tf32"
    return Operation(macs, "tf32" if is_tf32 else str(z.dtype).removeprefix("torch."), moved)
