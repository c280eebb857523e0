"""Bounds of steps as text for a terminal, and as rows that are kept: ``kernels/bounds.csv``."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossbench.bench.predicting import gpus
from lossbench.bench.predicting.pipes import PIPES, rates
from lossbench.bench.predicting.steps import OPERANDS, Part, Step

if TYPE_CHECKING:
    import pandas as pd

NOW = "now"
"""State of the kernels in a row that is compared; rows of any other state are kept as they are."""
STEP = "step"
"""In place of a kernel's name: the whole step."""
MEANING = (
    "A bound is no prediction: no kernel that was compiled so can be faster; it may be much slower."
)


def text(step: Step) -> str:
    """A step for a terminal of 80 columns."""
    case, gpu = step.case, gpus.gpu(rates(step.capability).gpu)
    with_gradient = "with gradient" if case.pass_ == "step" else "value alone"
    lines = [
        f"SMI of ({case.batch}, {case.dim}), 16-bit, {with_gradient}, on {gpu.title}:",
        f"at most {step.share:.1%} of the tensor cores' peak",
        *(line for part in step.parts for line in _part(part)),
    ]
    if step.library_macs:
        macs = f"{step.library_macs / 1e12:.3g}e12"
        lines.append(f"  cuBLAS: {macs} multiply-adds, taken to be at the peak")
    peak_s = 2 * case.cost.macs(case.pass_) / gpu.tflops[case.dtype] / 1e12
    share = step.moved_bytes / gpu.bandwidth_gb_per_s / 1e9 / peak_s
    lines.append(
        f"  bytes: {step.moved_bytes / 1e9:.3g} GB if no cache helps: at the memory's bandwidth\n"
        f"  {share:.0%} of the time that the needed products take at the peak"
    )
    return "\n".join(lines) + "\n"


def _part(part: Part) -> Iterable[str]:
    found = part.bound
    share = f", at most {found.share:.1%}" if part.task.macs else ""
    yield f"  {part.launch.name} x {part.count}: limit {found.limit}{share}"
    yield (
        f"    {part.task.tiles} tiles, {found.resident} programs an SM, "
        f"{part.code.size.registers} registers, {part.code.size.shared_bytes} B shared"
    )
    yield "    cycles a tile" + "".join(f"{pipe:>8}" for pipe in PIPES)
    for name, cycles in (("products", found.main), ("the rest", found.rest)):
        if any(cycles.values()):
            yield f"      {name:11}" + "".join(f"{cycles[pipe]:8.0f}" for pipe in PIPES)


def rows(steps: Iterable[Step], version: str) -> "pd.DataFrame":
    """A row for each kind of launch of each step, and one for the step."""
    import pandas as pd  # a training script needs none of it

    found: list[dict[str, Any]] = []
    for step in steps:
        case = step.case
        about = {
            "state": NOW, "triton": version, "cc": step.capability,
            "N": case.batch, "D": case.dim, "pass": case.pass_,
        }  # fmt: skip
        found += [about | _row(part) for part in step.parts]
        launches = sum(part.count for part in step.parts)
        whole = {"kernel": STEP, "launches": launches, "share": round(step.share, 3)}
        found.append(about | whole | {"MB": round(step.moved_bytes / 1e6)})
    return pd.DataFrame(found).astype(str).replace({"nan": ""})


def _row(part: Part) -> Mapping[str, Any]:
    found, size = part.bound, part.code.size
    cycles = {
        f"{name} {pipe}": round(each[pipe])
        for name, each in (("products", found.main), ("rest", found.rest))
        for pipe in PIPES
    }
    return {
        "kernel": part.launch.name,
        "launches": part.count,
        "tiles": part.task.tiles,
        "an SM": found.resident,
        "registers": size.registers,
        "shared B": size.shared_bytes,
        **cycles,
        "limit": found.limit,
        "share": round(found.share, 3) if part.task.macs else "",
    }


def merged(path: Path, made: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of a file, those of the same Triton and compute capabilities replaced."""
    import pandas as pd

    if not path.exists():
        return made
    kept = pd.read_csv(path, dtype=str, keep_default_na=False)
    return pd.concat([kept[~_same(kept, made)], made], ignore_index=True)


def is_stale(path: Path, made: "pd.DataFrame") -> bool:
    """Whether a file says something else of the same Triton and compute capabilities."""
    import pandas as pd

    kept = pd.read_csv(path, dtype=str, keep_default_na=False)
    return not kept[_same(kept, made)].reset_index(drop=True).equals(made)


def _same(kept: "pd.DataFrame", made: "pd.DataFrame") -> "pd.Series[bool]":
    columns: Sequence[str] = ("state", "triton", "cc")
    keys = {tuple(row) for row in made[list(columns)].itertuples(index=False)}
    return kept[list(columns)].apply(tuple, axis=1).isin(keys)
