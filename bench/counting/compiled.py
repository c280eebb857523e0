"""What torch.compile makes of code on a CPU, followed without compiling or computing.

The compiler is asked for the Python code that it generates, in which buffers are made, reused and
freed, and kernels and libraries are called. That code then runs on tensors without values: kernels
do nothing but are written down.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import Function
from torch.utils._python_dispatch import _disable_current_modes

from lossbench.losses.compiled import Compiled

Note = Callable[[Sequence[Any]], None]
Call = Callable[[list[Any]], Sequence[Any]]


@contextmanager
def simulated(note: Note, device: str) -> Iterator[None]:
    """Follow what is compiled, instead of compiling it.

    Args:
        note: told the arguments of each generated kernel that would be called.
        device: of the tensors without values: "meta", or "cpu" in a ``FakeTensorMode``.
    """

    def follow(self: Compiled, hyperparameters: Any, *inputs: Tensor) -> dict[str, Tensor]:
        names: list[str] = []

        def terms(*given: Tensor) -> tuple[Tensor, ...]:
            found = self.reference(hyperparameters, *given)
            names[:] = found
            return tuple(found.values())

        try:
            with _disable_current_modes(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the compiler's own, of its own code
                code = _generate(terms, inputs, partial(_load, note=note, device=device))
        except (ImportError, AttributeError, TypeError) as error:  # of another torch
            raise NotImplementedError(f"this torch's compiler cannot be asked: {error}") from error
        return dict(zip(names, _run(code, inputs), strict=True))

    with mock.patch.object(Compiled, "__call__", follow):
        yield


@dataclass
class _Generated:
    """Generated code of a function.

    Attributes:
        forward: returns the function's values, then what the backward pass needs.
        backward: takes that and a gradient for each value; None where no gradient is needed.
        values: how many there are.
    """

    forward: Call | None = None
    backward: Call | None = None
    values: int = 0


def _run(code: _Generated, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    assert code.forward is not None
    makes: Call = code.forward
    if code.backward is None:
        return makes(list(inputs))
    differentiates: Call = code.backward

    class Both(Function):
        @staticmethod
        def forward(ctx: Any, *given: Tensor) -> tuple[Tensor, ...]:
            made = makes(list(given))
            ctx.save_for_backward(*made[code.values :])
            return tuple(made[: code.values])

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
            arguments = [*ctx.saved_tensors, *gradients]
            ctx.maybe_clear_saved_tensors()  # the code frees each after its last use
            return tuple(differentiates(arguments))

    return tuple(Both.apply(*inputs))


def _generate(
    function: Callable[..., tuple[Tensor, ...]],
    given: Sequence[Tensor],
    load: Callable[[str], Call],
) -> _Generated:
    """Ask for the code of the forward and, if a gradient is needed, of the backward pass."""
    from torch._functorch.aot_autograd import aot_function
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch._inductor.decomposition import select_decomp_table
    from torch._inductor.fx_passes.joint_graph import joint_graph_passes

    code = _Generated()
    mode = FakeTensorMode()
    with mode:
        inputs = [
            torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, requires_grad=x.requires_grad)
            for x in given
        ]
    trains = torch.is_grad_enabled() and any(each.requires_grad for each in given)

    def compiler(name: str) -> Any:
        def compile_(gm: Any, example_inputs: Any) -> Any:
            source = _source(gm, example_inputs, mode, not trains, name == "backward")
            setattr(code, name, load(source))
            return gm

        return compile_

    def partition(joint: Any, arguments: Any, **options: Any) -> Any:
        joint_graph_passes(joint)
        return min_cut_rematerialization_partition(joint, arguments, compiler="inductor", **options)

    traced = aot_function(
        function,
        compiler("forward"),
        compiler("backward"),
        partition_fn=partition,
        decompositions=select_decomp_table(),
    )
    # the context tells the compiler which of the saved tensors it may write over
    with mode, tracing(TracingContext(mode)):
        values = traced(*inputs)
        code.values = len(values)
        if trains:
            torch.autograd.grad(sum(values), [each for each in inputs if each.requires_grad])
    return code


def _source(graph: Any, examples: Any, mode: FakeTensorMode, infers: bool, backward: bool) -> str:
    from torch._inductor.debug import DebugContext
    from torch._inductor.fx_passes.post_grad import post_grad_passes
    from torch._inductor.graph import GraphLowering
    from torch._inductor.virtualized import V

    with V.set_fake_mode(mode), DebugContext():
        post_grad_passes(graph, is_inference=infers)
        lowering = GraphLowering(
            graph, example_inputs=examples, is_inference=infers, is_backward=backward
        )
        with V.set_graph_handler(lowering):
            lowering.run(*examples)
            code = lowering.codegen()[0]
    return str(getattr(code, "value", code))


def _load(source: str, note: Note, device: str) -> Call:
    """The generated module's ``call``, on tensors without values."""
    from torch._inductor.async_compile import AsyncCompile

    def kernel(*_: Any, **__: Any) -> Callable[..., None]:
        return lambda *arguments: note(arguments)

    space: dict[str, Any] = {"__name__": "generated"}
    with mock.patch.object(AsyncCompile, "cpp_pybinding", kernel):
        exec(compile(source, "<generated>", "exec"), space)
    space.update(
        empty_strided_cpu=partial(_empty, device),
        assert_size_stride=lambda *_: None,
        assert_alignment=lambda *_: None,
        reinterpret_tensor=torch.as_strided,
        extern_kernels=torch,
    )
    call: Call = space["call"]
    return call


def _empty(device: str, size: Sequence[int], stride: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(size, stride, dtype=dtype, device=device)
