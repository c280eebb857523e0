"""Launches of Triton kernels that are not ours, by signatures as Triton's own compiler takes them.

A signature names the type of each argument, or its value where the kernel is compiled for it:
``*fp32:16, *bf16, i32:16, i32, 64, True``. ``:16`` says that a pointer or number is a multiple of
16, as Triton finds out by itself when a kernel is launched (``triton.tools.compile`` has the same).
"""

import ast
import re

from lossbench.bench.predicting.audit import Launch
from lossbench.losses.outside import look_up

_TYPE = re.compile(r"(\*?(?:fp|bf|i|u)\d+(?:e\d+\w*)?)(:16)?")


def launch(path: str, signature: str, warps: int, stages: int) -> Launch:
    """A launch of ``package.module:jit_function``.

    Args:
        path: where the kernel is found; decorators such as ``triton.autotune`` are looked through.
        signature: of its arguments, as a comma-separated list.
        warps: of a program.
        stages: of its pipeline.

    Raises:
        ValueError: no Triton kernel, or a signature that does not fit it.
    """
    kernel = look_up(path, "kernel")
    while not hasattr(kernel, "arg_names") and hasattr(kernel, "fn"):
        kernel = kernel.fn
    if not hasattr(kernel, "constexprs"):
        raise ValueError(f"{path} is not a function of triton.jit")
    while hasattr(kernel.fn, "arg_names"):  # autotune and heuristics have them too
        kernel = kernel.fn
    parts = [part.strip() for part in signature.split(",")] if signature else []
    names = list(kernel.arg_names)
    if len(parts) != len(names):
        raise ValueError(
            f"{path} takes {', '.join(names)}: a signature has {len(names)} parts, got {len(parts)}"
        )
    types, constants, aligned = [], [], []
    for position, (name, part) in enumerate(zip(names, parts, strict=True)):
        is_constant = position in kernel.constexprs
        found = _TYPE.fullmatch(part)
        if found and not is_constant:
            types.append((name, found[1]))
            aligned += [position] if found[2] else []
        else:
            types.append((name, "constexpr"))
            constants.append((name, _constant(path, name, part)))
    return Launch(
        kernel, kernel.__name__, tuple(types), tuple(constants), tuple(aligned),
        (("num_stages", stages), ("num_warps", warps)), "",
    )  # fmt: skip


def _constant(path: str, name: str, text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        raise ValueError(
            f"{path}: {name} is a type such as *fp32:16 or i32, or a value such as 64, got {text!r}"
        ) from None
