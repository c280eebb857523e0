"""What the commands do, from Python. Options have their names; lists take the place of commas.

Imported as ``lossbench.run`` and so on. ``pass`` and ``set`` are words of Python: here they are
``pass_`` and ``set_``.
"""

import operator
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from lossbench.bench.cases.selection import NONE, present_device, select_cases
from lossbench.bench.cases.suites import PAIRED
from lossbench.bench.interface import functions, training
from lossbench.bench.interface.parsing import parse_bytes, parse_seconds
from lossbench.bench.pretraining.config import spread
from lossbench.bench.pretraining.session import Plan
from lossbench.bench.pretraining.steps import select_steps
from lossbench.bench.records import runfile
from lossbench.bench.records.runfile import Run
from lossbench.bench.running.launch import make_launcher
from lossbench.bench.running.script import check_guarded
from lossbench.losses import outside, plugins
from lossbench.reports.functions import compare, figure, load, table
from lossbench.reports.records import to_frame

__all__ = ["compare", "count", "figure", "load", "predict", "pretrain", "run", "table"]

Names = str | Iterable[str] | None
Losses = str | Mapping[str, Any] | Iterable[str | Mapping[str, Any]] | None
"""Names of losses, and losses of one's own: ``{"mine": function}``, or where they are found."""
Numbers = int | Iterable[int] | None
PRETRAINED = ("barlow_twins", "nt_xent", "smi", "vicreg")


def run(
    suite: str | None = None,
    *,
    loss: Losses = None,
    implementation: Names = None,
    batch: Numbers = None,
    dim: Numbers = None,
    dtype: Names = None,
    pass_: Names = None,
    world: Numbers = None,
    distribution: Names = None,
    set_: Mapping[str, Any] = NONE,
    inputs: str | None = None,
    device: str | None = None,
    contender: Names = None,
    plugin: Names = None,
    paired: bool = False,
    accuracy: bool = False,
    energy: bool = False,
    frontier: bool = False,
    memory: str | None = None,
    out: str | Path | None = None,
    budget: str | float | None = None,
    timeout: str | float = "10m",
    restart: bool = False,
    launcher: str | None = None,
    jobs: int | None = None,
    slurm: Mapping[str, Any] = NONE,
) -> pd.DataFrame:
    """Count and measure cases, each in a child process, as ``lossbench run`` does.

    Args:
        suite: named grid, such as "efficiency"; lists replace what it says.
        loss: losses; default: all of ours. Those of yours are ``{"mine": function or module}``, in
            place of a name or alone, or "mine=package.module:attribute?key=value".
        implementation: ways to compute them; default: all.
        batch: samples per device, N.
        dim: embedding dimensions, D.
        dtype: names of torch dtypes.
        pass_: "forward", "forward_grad" or "step".
        world: numbers of devices, W.
        distribution: how devices share a loss: "local", "gather", "allreduce" or "gram".
        set_: hyperparameters and options of implementations, such as
            ``{"smi.lambda_": 2, "smi.chunked.workspace_bytes": 65536}``.
        inputs: "random", "aligned", "collapsed", "digits" or "file:PATH".
        device: "cpu" or "cuda"; default: cuda if there is one.
        contender: a loss of ours as you compute it, such as "vicreg.mine=package.module:attribute".
        plugin: modules of yours that register losses or implementations, such as "package.module".
        paired: time cases in turn, so that their ratios can be believed.
        accuracy: measure errors on random, aligned and collapsed inputs.
        energy: measure the energy of a call, where the device counts it.
        frontier: find the largest batch that fits instead, of each case.
        memory: with ``frontier``: of an emulated device, such as "24GB".
        out: run file, continued if it is there; None keeps the run in memory alone.
        budget: stop starting cases after this, such as "3m" or 180 (seconds).
        timeout: give a case up after this.
        restart: set a run of other code or another machine aside.
        launcher: "slurm" or "local": measure in jobs; needs ``out``.
        jobs: with ``launcher``: how many share the work.
        slurm: with ``launcher``: parameters of each job, such as ``{"partition": "gpu"}``.

    Returns:
        A record of each case, one row each: its fields are those of docs/run-files.md, and
        ``machine``, ``hardware`` and ``created``. With ``frontier`` a row of each kind of case.

    Raises:
        ValueError: a value that no case accepts, or values that do not go together.
        RunFileError: the run file cannot be read or written, or comes from other code.
        RuntimeError: a script without a ``__main__`` guard.

    Example:
        >>> records = lossbench.run(loss=["smi", "vicreg"], batch=256, dim=1024, paired=True)
        >>> lossbench.table("implementations", records)
    """
    plugins.use(_names("plugin", plugin))
    if not functions.are_many():  # torchrun's processes start none
        check_guarded()
    functions.check_frontier(frontier, memory, paired or accuracy or energy or budget or launcher)
    starts = make_launcher(launcher or "", jobs, _settings("slurm", slurm))
    if starts and out is None:
        raise ValueError("jobs write a run file: give out")
    if suite in PAIRED:
        paired = accuracy = True
    cases = select_cases(
        **_chosen(suite, loss, implementation, batch, world, distribution, set_, device),
        dim=_numbers("dim", dim),
        dtype=_names("dtype", dtype),
        pass_=_names("pass_", pass_),
        inputs=None if inputs is None else str(inputs),
        contender=_names("contender", contender),
        there=starts.there(device) if starts else "",
    )
    limits = (
        float("inf") if budget is None else parse_seconds(str(budget)),
        parse_seconds(str(timeout)),
    )
    with _run_file(out) as path:
        if frontier:
            size = parse_bytes(str(memory)) if memory else None
            found, _ = functions.find_frontier(cases, path, restart, size, limits[1])
            return pd.DataFrame([each.describe() for each in found])
        outcome = functions.run(cases, path, restart, starts, *limits, paired, accuracy, energy)
        return _frame(path, outcome.records, out is not None)


def count(
    suite: str | None = None,
    *,
    loss: Losses = None,
    implementation: Names = None,
    batch: Numbers = None,
    dim: Numbers = None,
    dtype: Names = None,
    pass_: Names = None,
    world: Numbers = None,
    distribution: Names = None,
    set_: Mapping[str, Any] = NONE,
    inputs: str | None = None,
    device: str | None = None,
    contender: Names = None,
    plugin: Names = None,
) -> pd.DataFrame:
    """Count MACs, FLOPs and bytes of cases exactly, without running them.

    Args:
        suite: as the others, see ``run``.
        loss: see ``run``.
        implementation: see ``run``.
        batch: see ``run``.
        dim: see ``run``.
        dtype: see ``run``.
        pass_: see ``run``.
        world: see ``run``.
        distribution: see ``run``.
        set_: see ``run``.
        inputs: see ``run``.
        device: see ``run``.
        contender: see ``run``; counted in a child process.
        plugin: see ``run``.

    Returns:
        A row of each case: ``gmacs`` and ``gflops`` of all devices together, ``saved_bytes`` of
        one, and the other counts of docs/run-files.md.

    Raises:
        ValueError: a value that no case accepts.
    """
    plugins.use(_names("plugin", plugin))
    chosen = _chosen(suite, loss, implementation, batch, world, distribution, set_, device)
    if contender or any("=" in name for name in chosen["loss"]):
        check_guarded()
    cases = select_cases(
        **chosen,
        dim=_numbers("dim", dim),
        dtype=_names("dtype", dtype),
        pass_=_names("pass_", pass_),
        inputs=None if inputs is None else str(inputs),
        contender=_names("contender", contender),
    )
    return pd.DataFrame(functions.count(cases))


def predict(
    suite: str | None = None,
    *,
    preset: str | None = None,
    gpu: Names = None,
    gpu_spec: str | Path | None = None,
    link: str | None = None,
    loss: Losses = None,
    implementation: Names = None,
    batch: Numbers = None,
    dim: Numbers = None,
    dtype: Names = None,
    pass_: Names = None,
    world: Numbers = None,
    distribution: Names = None,
    set_: Mapping[str, Any] = NONE,
    plugin: Names = None,
    device: str | None = None,
) -> pd.DataFrame:
    """Predict time, memory and communication of cases, or of whole steps of pretraining.

    Args:
        suite: see ``run``.
        preset: published settings of pretraining: a whole step is predicted, ``set_`` changes it.
        gpu: GPUs that need not be here, or "all"; default: this device, calibrated first.
        gpu_spec: a file of further datasheets, in the form of docs/predict.md.
        link: link between devices, such as "ib400"; "nvlink" is a GPU's own.
        loss: see ``run``.
        implementation: see ``run``.
        batch: see ``run``.
        dim: see ``run``.
        dtype: see ``run``.
        pass_: see ``run``.
        world: see ``run``.
        distribution: see ``run``.
        set_: see ``run``.
        plugin: see ``run``.
        device: "cpu" or "cuda", where no GPU is named.

    Returns:
        A row of each case and device: ``gpu``, ``predicted_ms``, its terms, ``fits``, ... or,
        where it cannot be predicted, ``status`` and ``reason``.

    Raises:
        ValueError: a value that no case accepts, an unknown GPU or link.
    """
    plugins.use(_names("plugin", plugin))
    if (gpu or gpu_spec) and device:
        raise ValueError("device is for what is here; leave it out with gpu")
    chosen = {
        **_chosen(suite, loss, implementation, batch, world, distribution, set_, device),
        "dim": _numbers("dim", dim),
        "dtype": _names("dtype", dtype),
        "pass_": _names("pass_", pass_),
        "there": "cuda" if gpu or gpu_spec else "",
    }
    cases: Sequence[Any] = select_steps(preset, **chosen) if preset else select_cases(**chosen)
    spec = Path(gpu_spec) if gpu_spec else None
    records, _ = functions.predict(cases, _names("gpu", gpu), spec, link or "")
    return pd.DataFrame(records)


def pretrain(
    preset: str = "digits",
    *,
    loss: Losses = PRETRAINED,
    implementation: Names = "auto",
    data: str | None = None,
    batch: int | None = None,
    set_: Mapping[str, Any] = NONE,
    plugin: Names = None,
    device: str | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    on_nan: str = "stop",
    evaluate: bool = False,
    paired: bool = False,
    out: str | Path | None = None,
    restart: bool = False,
    checkpoint: str | Path | None = None,
    every: int | None = None,
    launcher: str | None = None,
    jobs: int | None = None,
    slurm: Mapping[str, Any] = NONE,
) -> pd.DataFrame:
    """Pretrain an encoder by each loss and time every phase of a step.

    Args:
        preset: published settings, by name.
        loss: losses, one run each; see ``run``.
        implementation: ways to compute them, one run each.
        data: "synthetic", "digits", "imagefolder:PATH", ...; default: the preset's.
        batch: images per device and step; default: the preset's.
        set_: any setting, such as ``{"precision": "bf16", "smi.lambda_": 2}``.
        plugin: see ``run``.
        device: "cpu" or "cuda"; default: cuda if there is one.
        epochs: of the whole schedule; default: the preset's.
        steps: end after these; default: the whole schedule.
        on_nan: "stop" or "skip", when the loss is not finite.
        evaluate: judge the features by a linear probe and k-NN.
        paired: make a step of each run in turn.
        out: run file, continued if it is there; None keeps the run in memory alone.
        restart: set a run of other code or another machine aside.
        checkpoint: folder to keep checkpoints in, and to resume from.
        every: steps between checkpoints; default: only at the end.
        launcher: "slurm" or "local": run in jobs; needs ``out``.
        jobs: with ``launcher``: how many share the work.
        slurm: with ``launcher``: parameters of each job.

    Returns:
        A record of each run, one row each.

    Raises:
        ValueError: a value that no run accepts, or values that do not go together.
        RunFileError: the run file cannot be read or written, or comes from other code.
    """
    plugins.use(_names("plugin", plugin))
    starts = make_launcher(launcher or "", jobs, _settings("slurm", slurm))
    if starts and out is None:
        raise ValueError("jobs write a run file: give out")
    ways = _losses(loss) or PRETRAINED, _names("implementation", implementation) or ["auto"]
    changes: dict[str, Any] = {"epochs": _count("epochs", epochs), "batch": _count("batch", batch)}
    changes["data"] = str(data) if data else ""
    configs = spread(preset, *ways, _settings("set_", set_), **changes)
    folder = Path(checkpoint) if checkpoint else None
    plan = Plan(_count("steps", steps), folder, _count("every", every), on_nan, evaluate)
    where = (starts.there(device) if starts else "") or present_device(device)
    with _run_file(out) as path:
        records, _ = training.pretrain(configs, path, plan, where, restart, starts, paired)
        return _frame(path, records, out is not None)


def _chosen(
    suite: str | None,
    loss: Losses,
    implementation: Names,
    batch: Numbers,
    world: Numbers,
    distribution: Names,
    set_: Mapping[str, Any],
    device: str | None,
) -> dict[str, Any]:
    """What chooses cases and steps alike."""
    return {
        "suite": suite,
        "loss": _losses(loss),
        "implementation": _names("implementation", implementation),
        "batch": _numbers("batch", batch),
        "world": _numbers("world", world),
        "distribution": _names("distribution", distribution),
        "settings": _settings("set_", set_),
        "device": device,
    }


def _names(what: str, given: Names) -> list[str]:
    several = [given] if isinstance(given, str) else () if given is None else given
    found = list(several) if isinstance(several, Iterable) else [several]
    if not all(isinstance(each, str) for each in found):
        raise ValueError(f"{what} must be a name or a list of names, got {given!r:.60}")
    for each in found:
        if what != "contender" and "," in each:
            raise ValueError(f"{what}: give a list such as {each.split(',')}, not {each!r:.60}")
    return found


def _losses(given: Losses) -> list[str]:
    """Names, and texts that say where to find losses that have none here."""
    several = [given] if isinstance(given, (str, Mapping)) else given
    if not isinstance(several, Iterable):
        return _names("loss", several)
    found: list[str] = []
    for each in several:
        if isinstance(each, Mapping):
            found += [outside.describe(name, loss) for name, loss in each.items()]
        else:
            found += [each] if "=" in str(each) else _names("loss", [each])
    return found


def _settings(what: str, given: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"{what} must be a dict of names and values, got {given!r:.60}")
    # NumPy's numbers as Python's
    return {
        name: value.item() if hasattr(value, "item") else value for name, value in given.items()
    }


def _count(what: str, given: int | None) -> int:
    """0 of None, which stands for the default."""
    if given is None:
        return 0
    numbers = _numbers(what, given)
    if len(numbers) != 1 or numbers[0] < 1:
        raise ValueError(f"{what} must be a whole number, 1 or more, got {given!r:.60}")
    return numbers[0]


def _numbers(what: str, given: Numbers) -> list[int]:
    several = () if given is None else given if isinstance(given, Iterable) else (given,)
    try:
        return [operator.index(each) for each in several]
    except TypeError:
        said = f"{what} must be a whole number or a list of them, got {given!r:.60}"
        raise ValueError(said) from None


@contextmanager
def _run_file(out: str | Path | None) -> Iterator[Path]:
    """Path of the run file; of a run in memory one that is gone afterwards."""
    if out is not None:
        yield Path(out)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "run.jsonl"


def _frame(path: Path, records: Sequence[dict[str, Any]], keeps: bool) -> pd.DataFrame:
    """Records with what their run file's header says of them."""
    if not records:  # the first process of a job has them
        return pd.DataFrame()
    frame = to_frame([Run(path, runfile.read(path).header, list(records))])
    if not keeps:
        frame.attrs["path"] = "run in memory"
    return frame
