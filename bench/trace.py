"""What a case does, operation by operation, without doing it: on tensors that have no values.

Every operation is written down with its multiply-adds and the bytes that it reads and writes, and
what is allocated and freed is followed, so that the peak is known before there is any memory. The
fused kernels are launched as on a GPU of compute capability 9.0, and written down too.
"""

import sys
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache, cached_property
from math import prod
from typing import Any

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
SCRATCH = {"mse_loss": 2, "smooth_l1_loss": 2, "huber_loss": 1}
"""Tensors of the shape of their inputs that these make and reduce, in one call."""


@dataclass(frozen=True)
class Operation:
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
    mode, device = _valueless(case) if not run else (nullcontext(), "cpu")
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
        self._saved: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        # what was added up in place of its first part is not held beside it: see _is_accumulation
        name = func._schema.name
        self._settle(name)
        host = HOSTS.get(func) if CAN_RECORD else None
        if host is not None:
            with self:
                return host(*args, **kwargs)
        written = _written(func) if self._skips else None
        # without values such an operation does nothing, for which torch takes longest
        output = None if written is None else kwargs["out"] if written else args[0]
        result = self._result(func, args, kwargs) if output is None else output
        for tensor in _tensors(result):
            self._hold(tensor)
        if not _is_accumulation(func):
            self._settle(name, _scratch_bytes(func, args))
        if _is_work(func):
            self.found.operations.append(_operation(func, args, kwargs, result))
        return result

    def _result(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What an operation returns; of meta tensors as it was for others of that shape."""
        if not (self._skips and _is_functional(func)):
            return func(*args, **kwargs)
        key = (func, _shape_of(args), _shape_of(tuple(kwargs.items())))
        if key in _known:
            shape, stride, dtype = _known[key]
            return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and result.is_meta and type(result) is Tensor:
            _known[key] = (result.shape, result.stride(), result.dtype)
        return result

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

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._sizes:
            self._sizes[key] = size
            self._live += size
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._sizes.pop(key, None)
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


@cache
def _written(func: Any) -> int | None:
    """Position of the tensor that an operation writes to and returns, if it does only that."""
    arguments = func._schema.arguments
    aliases = [each.alias_info for each in arguments]
    changed = [i for i, alias in enumerate(aliases) if alias and alias.is_write]
    if len(changed) != 1 or torch.Tag.inplace_view in func.tags:
        return None
    return changed[0] if changed == [0] or arguments[changed[0]].name == "out" else None


_known: dict[Any, Any] = {}
"""Operation and the shapes that it was called with -> shape of its result."""


@cache
def _is_functional(func: Any) -> bool:
    """Whether what an operation returns is new and depends on the shapes that it is given."""
    schema = func._schema
    return not any(each.alias_info for each in (*schema.arguments, *schema.returns))


def _shape_of(given: Any) -> Any:
    """Arguments, with the shapes of tensors in their place."""
    if isinstance(given, Tensor):
        return (given.shape, given.stride(), given.dtype, given.device)
    if isinstance(given, (list, tuple)):
        return tuple(_shape_of(each) for each in given)
    return given


@cache
def _is_work(func: Any) -> bool:
    space, _, name = func._schema.name.partition("::")
    return not (func.is_view or space == "prim" or name in NO_WORK)


def _tensors(found: Any) -> Iterator[Tensor]:
    """Those among arguments or results, which are tensors or lists of them, if they are any."""
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, (list, tuple)):
        for each in found:
            yield from _tensors(each)


def _is_accumulation(func: Any) -> bool:
    """Whether autograd's engine adds up the gradients of a tensor that was used twice.

    It adds in place where nobody else holds the first, but not while it is followed.
    """
    if func is not torch.ops.aten.add.Tensor:
        return False
    frame: Any = sys._getframe()
    while frame.f_globals["__name__"] in _BETWEEN:
        frame = frame.f_back
    return bool(frame.f_code.co_name == "_engine_run_backward")


def _scratch_bytes(func: Any, args: tuple[Any, ...]) -> int:
    """Bytes that an operation holds while it runs, beyond what it returns."""
    tensors = SCRATCH.get(func._schema.name.partition("::")[2], 0)
    if not tensors or args[2:3] == (0,):  # which says that nothing is reduced
        return 0
    return tensors * _bytes(args[0])


def _operation(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Operation:
    given = list(_tensors((args, tuple(kwargs.values()))))
    name = func._schema.name.partition("::")[2]
    out = kwargs.get("out")
    read = [tensor for tensor in given if tensor is not out]
    if name in OVERWRITES:
        read = read[1:]
    moved = sum(map(_bytes, (*read, *_tensors(result))))
    formula = flop_registry.get(func._overloadpacket)
    if formula is None:
        return Operation(0, "", moved)
    # formulas do not know the dtype that a product may be asked for
    known = [each for each in args if not isinstance(each, torch.dtype)]
    macs = formula(*known, **kwargs, out_val=result) // 2
    return Operation(macs, _precision(read[-1]) if macs else "", moved)


def _bytes(tensor: Tensor) -> int:
    """Bytes of a tensor; of one that is expanded, those that are there."""
    size = tensor.numel() * tensor.element_size()
    return min(size, tensor.untyped_storage().nbytes())


def _precision(operand: Tensor) -> str:
    lowered = torch.backends.cuda.matmul.fp32_precision == "tf32"
    if operand.dtype == torch.float32 and lowered and device_type(operand) == "cuda":
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
