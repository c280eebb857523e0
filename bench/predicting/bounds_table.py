"""Bounds of steps as text for a terminal, and as rows that are kept: ``kernels/bounds.csv``."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossbench.bench.predicting import gpus
from lossbench.bench.predicting.pipes import PIPES, rates
from lossbench.bench.predicting.steps import Part, Step

if TYPE_CHECKING:
    import pandas as pd

NOW = "now"
"""State of the kernels in a row that is compared; rows of any other state are kept as they are."""
KEYS = ("state", "triton", "cc")
"""Columns that say what a row is of."""
STEP = "step"
"""In place of a kernel's name: the whole step."""
MEANING = (
    "A bound is no prediction: code that was compiled so cannot be faster, and may\n"
    "be much slower. SM: multiprocessor. Cycles are of an SM, of a tile, by pipe."
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
        macs = f"{step.library_macs:.3g} multiply-adds"
        lines.append(f"  cuBLAS: {macs}, taken to be at the peak")
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
        f"    {part.task.tiles} tiles, {found.resident} at once on an SM, "
        f"{part.code.size.registers} registers, {part.code.size.shared_bytes} B"
    )
    if part.task.macs:
        yield f"    operands from the L2 cache: {part.loaded:.0f} B a cycle at that speed"
    yield "    cycles       " + "".join(f"{pipe:>8}" for pipe in PIPES)
    for name, cycles in (("products", found.main), ("the rest", found.rest)):
        if any(cycles.values()):
            yield f"      {name:11}" + "".join(f"{cycles[pipe]:8.0f}" for pipe in PIPES)


def rows(steps: Iterable[Step], version: str) -> "pd.DataFrame":
    """A row for each kind of launch of each step, and one for the step."""
    import pandas as pd  # a training script needs none of it

    found: list[dict[str, Any]] = []
    for step in steps:
        case = step.case
        about: dict[str, Any] = {
            **dict(zip(KEYS, (NOW, version, step.capability), strict=True)),
            "N": case.batch, "D": case.dim, "pass": case.pass_,
        }  # fmt: skip
        found += [about | _row(part) for part in step.parts]
        launches = sum(part.count for part in step.parts)
        whole = {"kernel": STEP, "launches": launches, "share": round(step.share, 3)}
        found.append(about | whole | {"MB": round(step.moved_bytes / 1e6)})
    # as they are read: of text, so that what is compared is what is written
    texts = [{name: str(value) for name, value in row.items()} for row in found]
    return pd.DataFrame(texts).fillna("")


def _row(part: Part) -> dict[str, Any]:
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
        "L2 B": round(part.loaded) if part.task.macs else "",
        "limit": found.limit,
        "share": round(found.share, 3) if part.task.macs else "",
    }


def read(path: Path) -> "pd.DataFrame":
    """Rows of a file; none where there is none.

    Raises:
        ValueError: a file of something else.
    """
    import pandas as pd

    if not (path.is_file() and path.read_text().strip()):
        return pd.DataFrame(columns=list(KEYS), dtype=str)
    found = pd.read_csv(path, dtype=str, keep_default_na=False)
    if not {*KEYS} <= {*found.columns}:
        raise ValueError(f"{path} is no table of bounds: its columns must have {', '.join(KEYS)}")
    return found


def merged(found: "pd.DataFrame", made: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of a file, those of the same Triton and compute capabilities replaced."""
    import pandas as pd

    return pd.concat([found[~_same(found, made)], made], ignore_index=True).fillna("")


def alike(found: "pd.DataFrame", made: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of a file of the same Triton and compute capabilities."""
    columns = found.reindex(columns=made.columns, fill_value="")
    return columns[_same(found, made)].reset_index(drop=True)


def _same(found: "pd.DataFrame", made: "pd.DataFrame") -> "pd.Series[bool]":
    keys = set(made[list(KEYS)].itertuples(index=False, name=None))
    return found[list(KEYS)].apply(tuple, axis=1, result_type="reduce").isin(keys)
