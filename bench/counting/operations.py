"""What an operation that torch dispatches, or a launch of a fused kernel, computes and moves."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from lossbench.bench.counting import elementwise
from lossbench.bench.counting.formulas import FORMULAS
from lossbench.bench.counting.recording import CAN_RECORD
from lossbench.kernels.ops import HOSTS
from lossbench.losses.devices import device_type

NO_WORK = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh"}
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
        elementwise: additions, multiplications and the like beside matrix products.
        transcendentals: exponentials, logarithms, roots and the like.
    """

    macs: int
    precision: str
    moved_bytes: int
    elementwise: int = 0
    transcendentals: int = 0


@dataclass(frozen=True)
class Kind:
    """What an operator's schema says of it, looked up once.

    Attributes:
        name: with its namespace.
        host: of a fused kernel: launches it.
        formula: counts the floating-point operations of a matrix product.
        each: arithmetic of each element, see ``elementwise.of_each``.
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
    each: Any
    is_work: bool
    is_functional: bool
    written: int | None
    overwrites: int
    reduces: bool
    keeps: bool
    adds: bool
    known: dict[Any, Any] = field(default_factory=dict)

    @property
    def is_counted(self) -> bool:
        """Whether all of its arithmetic is counted."""
        return not self.is_work or self.formula is not None or self.each is not None


@cache
def kind_of(func: Any) -> Kind:
    """What kind of operation an operator does."""
    schema = func._schema
    space, _, name = schema.name.partition("::")
    return Kind(
        name=schema.name,
        host=HOSTS.get(func) if CAN_RECORD else None,
        formula=_formula(func._overloadpacket),
        each=elementwise.of_each(func),
        is_work=not (space == "prim" or name in NO_WORK or torch.Tag.inplace_view in func.tags),
        is_functional=not any(each.alias_info for each in (*schema.arguments, *schema.returns)),
        written=_written(func),
        overwrites=1 if name in OVERWRITES else 0,
        reduces=name in REDUCES,
        keeps=name in KEEPS,
        adds=func is torch.ops.aten.add.Tensor,
    )


def _formula(packet: Any) -> Any:
    return FORMULAS.get(packet) or flop_registry.get(_COUNTED_AS.get(packet, packet))


def _written(func: Any) -> int | None:
    arguments = func._schema.arguments
    aliases = [each.alias_info for each in arguments]
    changed = [i for i, alias in enumerate(aliases) if alias and alias.is_write]
    if len(changed) != 1 or torch.Tag.inplace_view in func.tags:
        return None
    return changed[0] if changed == [0] or arguments[changed[0]].name == "out" else None


def shape_of(given: Any) -> Any:
    """Arguments, with the shapes of tensors in their place."""
    if isinstance(given, Tensor):
        return (given.shape, given.stride(), given.dtype, given.device)
    if isinstance(given, (list, tuple)):
        return tuple([shape_of(each) for each in given])
    return (given, given.__class__)  # 2 and 2.0 are equal


def layout_of(tensor: Tensor) -> dict[str, Any]:
    """What ``torch.empty_strided`` makes another tensor of, but for the device."""
    return {"size": tensor.shape, "stride": tensor.stride(), "dtype": tensor.dtype}


def tensors_in(found: Any) -> Iterator[Tensor]:
    """Those among arguments or results, which are tensors or lists of them, if they are any."""
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, (list, tuple)):
        for each in found:
            yield from tensors_in(each)


def operation_of(
    func: Any, kind: Kind, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
) -> Operation | None:
    """The work of a call; None if it is none."""
    if not kind.is_work:
        return None
    out = kwargs.get("out")
    read = [each for each in tensors_in((args, tuple(kwargs.values()))) if each is not out]
    # a list that is written to in place is not returned
    written = result if result is not None or kind.written is None else args[kind.written]
    moved = sum(map(bytes_of, (*read[kind.overwrites :], *tensors_in(written))))
    if kind.formula is None:
        done = elementwise.of_call(func, kind.each, args, written) if kind.each else (0, 0)
        return Operation(0, "", moved, *done)
    # formulas do not know the dtype that a product may be asked for
    known = [each for each in args if not isinstance(each, torch.dtype)]
    macs = round(kind.formula(*known, **kwargs, out_val=result) / 2)
    # what is added comes before the operands, statistics after them
    operand = read[:2][-1]
    beside = elementwise.beside_product(func, args, result)
    return Operation(macs, _precision(operand) if macs else "", moved, *beside)


def bytes_of(tensor: Tensor) -> int:
    """Bytes of a tensor; of one that is expanded, or of overlapping windows, those it has."""
    elements, strides = tensor.numel(), tensor.stride()
    if elements and 0 in strides:
        elements = prod(n for n, step in zip(tensor.shape, strides, strict=True) if step)
    reach = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, strides, strict=True))
    return min(elements, reach) * tensor.element_size()


def is_lowered() -> bool:
    """Whether products of float32 operands are done in TF32 on a GPU."""
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")


def _precision(operand: Tensor) -> str:
    if operand.dtype == torch.float32 and is_lowered() and device_type(operand) == "cuda":
        return "tf32"
    return str(operand.dtype).removeprefix("torch.")


def launch_of(arguments: dict[str, Any], grid: tuple[int, ...]) -> Operation:
    """What a launch of ``kernels.tiles`` or ``kernels.normalise`` does."""
    operands = {name: value for name, value in arguments.items() if name in ("z_rows", "z_columns")}
    others = [value for name, value in arguments.items() if name not in operands]
    moved = sum(map(bytes_of, tensors_in(others)))
    if not operands:
        return Operation(0, "", moved)
    z = getattr(operands["z_rows"], "base", operands["z_rows"])  # of a tensor descriptor
    down = arguments["region_down"]
    read = (down + arguments.get("region_across", down)) * z.shape[1] * z.element_size()
    moved += min(read, bytes_of(z))
    grams = 2 if arguments.get("KIND") == "cross" else 1
    # a grid is of tiles, parts of the depth, operands
    tile = arguments["ROWS"] * arguments["COLUMNS"]
    macs = grams * grid[0] * prod(grid[2:]) * tile * z.shape[1]
    is_tf32 = z.dtype == torch.float32 and arguments["PRECISION"] == "tf32"
    return Operation(macs, "tf32" if is_tf32 else str(z.dtype).removeprefix("torch."), moved)
