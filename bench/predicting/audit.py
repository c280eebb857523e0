"""What the shipped kernels compile to on each architecture, without a GPU.

The launches of every loss are recorded instead of run, so that what is audited is what is shipped:
each kernel with each configuration, dtype and epilogue. Each is compiled ahead of time and looked
at: registers, spills, shared memory, the tensor-core instruction, sizes.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from lossbench import losses
from lossbench.bench.counting.recording import recorded
from lossbench.kernels import configs
from lossbench.kernels.language import INSTALLED, INTERPRETED, SIZES
from lossbench.losses import pick

INSTRUCTIONS = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma", 120: "mma.sync"}
"""The tensor cores' instruction of each compute capability."""
SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024, 120: 99 * 1024}
"""Shared memory that a program may take (CUDA C++ Programming Guide, compute capabilities)."""
OPERANDS = (
    ("16-bit", torch.bfloat16, "ieee"),
    ("16-bit", torch.float16, "ieee"),
    ("tf32", torch.float32, "tf32"),
    ("ieee", torch.float32, "ieee"),
)
TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float64: "*fp64",
}


@dataclass(frozen=True)
class Launch:
    """A kernel as it is compiled for one kind of launch.

    Attributes:
        kernel: the Triton function.
        signature: type of each argument.
        constants: arguments that it is compiled for.
        aligned: positions of arguments that are multiples of 16.
        options: warps and stages.
        operands: kind of operands, of ``configs.kind_of``.
    """

    kernel: Any = field(compare=False)
    name: str
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    aligned: tuple[int, ...]
    options: tuple[tuple[str, int], ...]
    operands: str

    @property
    def what(self) -> str:
        """What the kernel does with each entry or row."""
        constants = dict(self.constants)
        named = [constants.get(name) for name in ("KIND", "ENTRY", "POSITIVE")]
        flags = [name.lower() for name in ("GRADIENT", "PROJECT") if constants.get(name)]
        words = [getattr(each, "__name__", each) for each in named if each is not None]
        return " ".join([*map(str, words), *flags])

    @property
    def multiplies(self) -> bool:
        """The kernel has matrix products."""
        return "PRECISION" in dict(self.constants)


@dataclass(frozen=True)
class Finding:
    """What a launch compiles to on one architecture.

    Attributes:
        capability: compute capability.
        launch: what was compiled.
        registers: of a thread.
        spilled_bytes: of a thread.
        shared_bytes: of a program.
        instruction: of the tensor cores, "" where it has none.
        ptx_bytes: size of the PTX.
        cubin_bytes: size of the machine code.
    """

    capability: int
    launch: Launch
    registers: int
    spilled_bytes: int
    shared_bytes: int
    instruction: str
    ptx_bytes: int
    cubin_bytes: int

    @property
    def name(self) -> str:
        """Which launch on which architecture."""
        launch = self.launch
        words = (launch.name, launch.what, launch.operands, f"on {self.capability}")
        return " ".join(word for word in words if word)

    @property
    def problem(self) -> str:
        """What must not be shipped, "" if nothing."""
        if self.spilled_bytes:
            return f"spills {self.spilled_bytes} bytes"
        if self.shared_bytes > SHARED_BYTES[self.capability]:
            return f"needs {self.shared_bytes} bytes of shared memory"
        needed = INSTRUCTIONS[self.capability]
        if self.launch.multiplies and self.launch.operands != "ieee" and not self.instruction:
            return f"does not use {needed}"
        return ""


def check(capability: int) -> None:
    """Check that kernels can be compiled for an architecture.

    Raises:
        ValueError: there is no configuration for it, or no compiler here.
    """
    if not INSTALLED:
        raise ValueError("the audit compiles kernels: it needs triton (on Linux)")
    if INTERPRETED:
        raise ValueError("the audit compiles kernels: unset TRITON_INTERPRET")
    pick("compute capability", str(capability), configs.table())


def version() -> str:
    """Of the Triton that compiles: another one makes other code."""
    import triton

    return str(triton.__version__)


def launches(capability: int) -> list[Launch]:
    """Every different launch of the shipped configurations of an architecture.

    Raises:
        ValueError: as ``check``.
    """
    check(capability)
    found: dict[Launch, None] = {}
    for kind, dtype, precision in OPERANDS:
        config = configs.table()[str(capability)][kind]
        with _recording(found, kind, config):
            for name in losses.names():
                if "triton" in losses.spec(name).fused:
                    _launch_all(name, dtype, precision)
    return list(found)


def examine_all(work: Sequence[Launch], capability: int) -> Iterator[Finding]:
    """Compile launches for an architecture, several at a time."""
    # a path in the machine code would make its size depend on where the project lies
    stable = mock.patch.dict(os.environ, {"TRITON_DISABLE_LINE_INFO": "1"})
    with stable, ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(lambda launch: examine(launch, capability), work)


def table(findings: Iterable[Finding]) -> str:
    """The largest of each kernel's variants, as Markdown."""
    import pandas as pd  # a training script needs none of it

    rows = [
        {
            "cc": found.capability,
            "kernel": found.launch.name,
            "operands": found.launch.operands,
            "registers": found.registers,
            "spilled": found.spilled_bytes,
            "shared KiB": found.shared_bytes / 1024,
            "tensor cores": found.instruction.partition(".")[0],
            "PTX KiB": found.ptx_bytes / 1024,
            "cubin KiB": found.cubin_bytes / 1024,
        }
        for found in findings
    ]
    groups = pd.DataFrame(rows).groupby(["cc", "kernel", "operands"])
    largest = groups.max()
    largest.insert(0, "variants", groups.size())
    return str(largest.reset_index().to_markdown(index=False, floatfmt=".0f")) + "\n"


def compiled(launch: Launch, capability: int) -> Any:
    """A launch as Triton compiles it for an architecture."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    attributes = {(position,): [["tt.divisibility", 16]] for position in launch.aligned}
    source = ASTSource(launch.kernel, dict(launch.signature), dict(launch.constants), attributes)
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options=dict(launch.options))


def examine(launch: Launch, capability: int) -> Finding:
    """Compile a launch for an architecture and read what came out."""
    found = compiled(launch, capability)
    ptx, cubin = found.asm["ptx"], found.asm["cubin"]
    needed = INSTRUCTIONS[capability]
    registers, spilled = resources(cubin, ptx)
    return Finding(
        capability, launch, registers, spilled, found.metadata.shared,
        needed if needed in ptx else "", len(ptx.encode()), len(cubin),
    )  # fmt: skip


def resources(cubin: bytes, ptx: str) -> tuple[int, int]:
    """Registers and spilled bytes of a thread."""
    said = tool("cuobjdump", cubin, "--dump-resource-usage")
    found = re.search(r"REG:(\d+) STACK:(\d+)", said)
    if found is None:
        raise RuntimeError(f"cuobjdump said nothing of registers: {said.strip()[:200]}")
    if found[2] == "0":
        return int(found[1]), 0
    # a stack may be that of a function which is called, such as a division's: the assembler knows
    target = re.search(r"\.target (\w+)", ptx)
    assert target is not None
    assembler = "ptxas-blackwell" if "_1" in target[1] else "ptxas"
    said = tool(assembler, ptx.encode(), "-v", f"--gpu-name={target[1]}", "-o", os.devnull)
    spilled = re.search(r"(\d+) bytes spill stores", said)
    if spilled is None:
        raise RuntimeError(f"ptxas said nothing of spills: {said.strip()[:200]}")
    return int(found[1]), int(spilled[1])


def tool(name: str, content: bytes, *options: str) -> str:
    """What a tool that comes with Triton says of a file.

    Args:
        name: "cuobjdump", "nvdisasm", "ptxas" or "ptxas-blackwell".
        content: of the file.
        options: of the tool.
    """
    import triton

    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    tool = folder / name
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        command = [str(tool), *options, file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def _launch_all(name: str, dtype: torch.dtype, precision: str) -> None:
    """Steps and forward passes of a loss by every strategy, G kept and not."""
    spec = losses.spec(name)
    options = {"precision": precision} if "precision" in spec.options("triton") else {}
    if precision == "tf32" and not options:
        return
    variants: list[dict[str, Any]] = [{}]
    if name == "smi":
        variants += [{"dependency": d} for d in ("squared_correlation", "correlation")]
    for hyperparameters in variants:
        for strategy in configs.STRATEGIES:
            for shape in ((256, 256), (256, 128)):  # losses of features turn where N > D
                settings = {**options, **hyperparameters, "strategy": strategy}
                loss = losses.create(name, "triton", **settings)
                views = [torch.ones(shape, dtype=dtype, requires_grad=True) for _ in "ab"]
                for kept_side in (0, 8192):
                    with mock.patch("lossbench.kernels.plan.KEPT_SIDE", kept_side):
                        loss(*views).backward()
                with torch.no_grad():
                    loss(*views)


@contextmanager
def _recording(found: dict[Launch, None], kind: str, config: Any) -> Iterator[None]:
    """Launches are written down in ``found`` instead of being run."""

    def note(kernel: Any, arguments: dict[str, Any], grid: tuple[int, ...]) -> None:
        found[describe(kernel, arguments, kind)] = None

    # super-blocks of 256, so that there are some on the diagonal of these batches and some off it
    with recorded(replace(config, side=256, product_side=256), note):
        yield


def describe(kernel: Any, arguments: dict[str, Any], operands: str) -> Launch:
    """A launch that was recorded, as it is compiled."""
    constants, signature, aligned = [], [], []
    constexprs = {kernel.arg_names[position] for position in kernel.constexprs}
    for position, name in enumerate(kernel.arg_names):
        value = arguments[name]
        if name in constexprs or value is None:
            constants.append((name, value))
            signature.append((name, "constexpr"))
        elif isinstance(value, torch.Tensor):
            signature.append((name, TYPES[value.dtype]))
            aligned.append(position)
        elif hasattr(value, "block_shape"):  # a tensor descriptor
            kind = TYPES[value.base.dtype].removeprefix("*")
            signature.append((name, f"tensordesc<{kind}{list(value.block_shape)}>"))
        elif isinstance(value, int):
            signature.append((name, "i32"))
            if value % 16 == 0 and name not in SIZES:
                aligned.append(position)
        else:
            signature.append((name, "fp32"))
    options = {k: v for k, v in arguments.items() if k not in kernel.arg_names}
    return Launch(
        kernel, kernel.__name__, tuple(signature), tuple(constants), tuple(aligned),
        tuple(sorted(options.items())), operands,
    )  # fmt: skip
