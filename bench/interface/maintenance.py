"""Commands for those who look after the harness and the kernels: noise, audit, tune."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lossbench.bench.interface.console import FAILED, OK, say, show_next
from lossbench.bench.interface.options import takes_cases
from lossbench.bench.interface.parsing import parse_numbers, parse_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lossbench.bench.cases.case import Case


@takes_cases
def measure_noise(
    cases: "list[Case]",
    comparisons: Annotated[
        int, typer.Option(help="How often each case is compared; in tens.")
    ] = 30,
    slowdown: Annotated[float, typer.Option(help="Share of its time added to the copy.")] = 0.15,
    neighbour: Annotated[
        bool, typer.Option("--neighbour", help="Keep a core busy meanwhile, half of the time.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Run file; continued if it is there.")] = Path(
        "runs/noise.jsonl"
    ),
    restart: Annotated[
        bool, typer.Option("--restart", help="Set a run of other code or machine aside.")
    ] = False,
    timeout: Annotated[str, typer.Option(help="Give a process up after this.")] = "10m",
) -> int:
    """Compare cases with themselves: how far paired timing can be trusted here."""
    from lossbench.bench.interface import functions
    from lossbench.bench.interface.display import trust

    if comparisons < 1 or not 0 < slowdown <= 10:
        raise ValueError("noise needs --comparisons from 1 on and a --slowdown above 0, up to 10")
    if any(case.is_share for case in cases):
        raise ValueError("noise compares on one device: leave --distribution out")
    found = functions.noise(
        cases, out, restart, comparisons, slowdown, neighbour, parse_seconds(timeout)
    )
    status = OK
    for case, records, failure in found:
        if failure:
            say(failure)
            status = FAILED
        else:
            trust(case, records)
    show_next("noise", out)
    return status


def audit_kernels(
    capability: Annotated[
        str, typer.Option(help="Compute capabilities of NVIDIA GPUs.")
    ] = "80,90,100,120",
    bounds: Annotated[
        bool, typer.Option("--bounds", help="What the code allows at best, instead of its sizes.")
    ] = False,
    kernel: Annotated[
        list[str],
        typer.Option(help="A Triton kernel of yours, package.module:function, in place of ours."),
    ] = [],  # noqa: B006 - Typer's way to say that it may be given again
    signature: Annotated[
        list[str],
        typer.Option(help="Of each --kernel: types of its arguments, values of constants."),
    ] = [],  # noqa: B006
    warps: Annotated[int, typer.Option(help="Of a program of --kernel.")] = 4,
    stages: Annotated[int, typer.Option(help="Of the pipeline of --kernel.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Write the table to this file.")] = None,
    check: Annotated[
        Path | None, typer.Option(help="Fail if the table in this file is another one.")
    ] = None,
) -> int:
    """Compile every kernel for GPUs that need not be here: registers, spills, bounds.

    A file has a table for each version of Triton: that of the installed one is written or checked.
    """
    from lossbench.bench.predicting import audit

    capabilities = parse_numbers("--capability", capability)
    for each in capabilities:
        audit.check(each)
    if check is not None and not check.is_file():  # before minutes of compiling
        raise ValueError(f"{check} is no file")
    for path in (check, out):
        if path is not None and path.is_file():
            _check_text(path)
    if kernel or signature:
        if bounds or out or check:
            raise ValueError("--kernel prints a table: leave --bounds, --out and --check out")
        problems = _kernels(capabilities, kernel, signature, warps, stages)
    else:
        problems = (_bounds if bounds else _sizes)(capabilities, out, check)
    for problem in problems:
        say(problem)
    return FAILED if problems else OK


def _kernels(
    capabilities: "Sequence[int]",
    kernels: "Sequence[str]",
    signatures: "Sequence[str]",
    warps: int,
    stages: int,
) -> list[str]:
    """Print what kernels of others compile to; what should not be shipped."""
    from lossbench.bench.predicting import audit
    from lossbench.bench.predicting import signatures as of_others

    if len(kernels) != len(signatures):
        raise ValueError(
            f"each --kernel needs a --signature such as '*fp32:16,i32,64', got {len(kernels)} and "
            f"{len(signatures)}"
        )
    pairs = zip(kernels, signatures, strict=True)
    work = [of_others.launch(path, text, warps, stages) for path, text in pairs]
    findings = [found for each in capabilities for found in audit.examine_all(work, each)]
    print(audit.table(findings), end="")
    return [f"{found.name}: {found.problem}" for found in findings if found.problem]


def _check_text(path: Path) -> None:
    try:
        path.read_text()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no table: it holds no text") from None


def _sizes(capabilities: "Sequence[int]", out: Path | None, check: Path | None) -> list[str]:
    """Print what every kernel compiles to; what must not be shipped."""
    from lossbench.bench.interface.progress import tracked
    from lossbench.bench.predicting import audit, versions

    findings = []
    for each in capabilities:
        work = audit.launches(each)
        name = f"compute capability {each}"
        findings += list(tracked(audit.examine_all(work, each), name, len(work)))
    table = audit.table(findings)
    print(table, end="")
    if out is not None:
        before = out.read_text() if out.is_file() else ""
        out.write_text(versions.replaced(before, audit.version(), table))
    problems = [f"{found.name}: {found.problem}" for found in findings if found.problem]
    if check is not None:
        expected = versions.section(check.read_text(), audit.version())
        if expected is None:
            say(f"{check} has no table of triton {audit.version()}: nothing to compare with")
        elif expected != table:
            problems.append(f"{check} is stale; run lossbench audit --out {check}")
    return problems


def _bounds(capabilities: "Sequence[int]", out: Path | None, check: Path | None) -> list[str]:
    """Print bounds of the headline steps."""
    from lossbench.bench.interface.progress import tracked
    from lossbench.bench.predicting import audit, bounds_table, steps

    held = {path: bounds_table.read(path) for path in (out, check) if path}
    found = []
    for each in capabilities:
        name = f"compute capability {each}"
        found += list(tracked(steps.steps(each), name, len(steps.cases())))
    print(f"triton {audit.version()}\n{bounds_table.MEANING}\n")
    print("\n".join(map(bounds_table.text, found)), end="")
    made = bounds_table.rows(found, audit.version())
    if out is not None:
        bounds_table.merged(held[out], made).to_csv(out, index=False)
    if check is None:
        return []
    expected = bounds_table.alike(held[check], made)
    if expected.empty:
        say(f"{check} has no bounds of triton {audit.version()}: nothing to compare with")
    elif not expected.equals(made):
        return [f"{check} is stale; run lossbench audit --bounds --out {check}"]
    return []


def tune_kernels(
    budget: Annotated[str, typer.Option(help="Stop searching after about this.")] = "8m",
) -> int:
    """Choose tile sizes of the kernels on this GPU; writes kernels/tuned.json."""
    import time

    import torch

    end = time.monotonic() + parse_seconds(budget)
    if not torch.cuda.is_available():
        raise ValueError("tune measures on an NVIDIA GPU, and there is none here")
    from lossbench.bench.running import tune
    from lossbench.kernels import configs

    major, minor = torch.cuda.get_device_capability()
    processors = torch.cuda.get_device_properties(0).multi_processor_count
    tuned = {
        kind: replace(configs.lookup(torch.device("cuda"), kind), processors=processors)
        for kind in tune.KINDS
    }
    made_by = f"lossbench tune on {torch.cuda.get_device_name()}"
    for kind, config in tune.tune(dict(tuned), tune.measure, lambda: end - time.monotonic()):
        tuned[kind] = config
        tune.write(f"{major}{minor}", tuned, made_by)  # as it goes: it may be stopped
        print(f"{kind}: {config}", flush=True)
    say(f"wrote {configs.TABLE}; lossbench audit says what these compile to")
    return OK
