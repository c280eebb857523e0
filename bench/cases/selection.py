"""Cases chosen by lists: a suite, or every combination of what is named."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch

from lossbench.bench.cases import settings as named_settings
from lossbench.bench.cases import third_parties
from lossbench.bench.cases.case import DEVICES, Case
from lossbench.bench.cases.contenders import make_cases
from lossbench.bench.cases.inputs import check_source, file_facts
from lossbench.bench.cases.suites import PAIRED, Grid, Layout
from lossbench.bench.cases.suites import suite as named
from lossbench.losses import pick

NONE: Mapping[str, Any] = MappingProxyType({})


def select_cases(
    suite: str | None = None,
    *,
    loss: Sequence[str] = (),
    implementation: Sequence[str] = (),
    batch: Sequence[int] = (),
    dim: Sequence[int] = (),
    dtype: Sequence[str] = (),
    pass_: Sequence[str] = (),
    world: Sequence[int] = (),
    distribution: Sequence[str] = (),
    settings: Mapping[str, Any] = NONE,
    inputs: str | None = None,
    device: str | None = None,
    contender: Sequence[str] = (),
    there: str = "",
) -> list[Case]:
    """Cases of a suite, or of lists; a list replaces what the suite says.

    Args:
        suite: name of a grid of ``cases.suites``.
        loss: names of losses, and guests as ``losses.spec`` takes them; default: all of ours.
        implementation: names of implementations; default: all.
        batch: samples per device, N; default: 256.
        dim: embedding dimensions, D; default: 8192.
        dtype: names of torch dtypes; default: float32.
        pass_: forward, forward_grad, step; default: step.
        world: numbers of devices, W; default: 1.
        distribution: how devices share a loss; default: local.
        settings: hyperparameters ``loss.name`` and options ``loss.implementation.name`` -> value.
        inputs: one of ``cases.inputs.SOURCES``; default: random.
        device: "cpu" or "cuda"; default: cuda if there is one.
        contender: losses of others, see ``cases.contenders.make_cases``.
        there: a device that need not be here, in place of ``device``.

    Raises:
        ValueError: nothing chosen, or a value that no case accepts.
    """
    if not any((suite, loss, batch, dim, inputs)):
        raise ValueError("choose cases: --suite efficiency, or lists: --loss smi --batch 256")
    lists = {"loss": loss, "implementation": implementation, "dim": dim, "dtype": dtype}
    chosen: dict[str, Any] = {name: values for name, values in lists.items() if values}
    chosen |= {"pass_": pass_} if pass_ else {}
    where = there or present_device(device)
    cases: list[Case] = []
    for grid in named(suite) if suite else (Grid(),):
        grid = replace(grid, device=where, **chosen)
        if inputs:
            grid = _with_inputs(grid, inputs, chosen, any((batch, world, distribution)))
        grid = replace(grid, layouts=_layouts(grid.layouts, batch, world, distribution))
        cases += [case for case in grid.cases() if case not in cases]
    if suite in PAIRED and not there:
        cases += third_parties.beside(cases)
    for text in contender:
        cases += make_cases(text, cases)
    for name, value in settings.items():
        cases = _with_setting(cases, name, value)
    _check_rows(cases)
    return cases


def present_device(name: str | None) -> str:
    """``cpu`` or ``cuda``; the latter if there is one and nothing is asked for.

    Raises:
        ValueError: another name, or a device that is not here.
    """
    if name:
        pick("device", name, DEVICES)
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ValueError("no CUDA device here; use --device cpu")
    return name or ("cuda" if has_cuda else "cpu")


def _layouts(
    layouts: Sequence[Layout],
    batches: Sequence[int],
    worlds: Sequence[int],
    distributions: Sequence[str],
) -> list[Layout]:
    """Replace what is given in each of ``layouts``, and keep the rest of it."""
    replaced = (
        itertools.product(batches or [batch], worlds or [world], distributions or [distribution])
        for batch, world, distribution in layouts
    )
    return list(dict.fromkeys(itertools.chain.from_iterable(replaced)))


def _with_inputs(grid: Grid, inputs: str, chosen: dict[str, Any], chosen_layout: bool) -> Grid:
    """A file says what N, D and the dtype are, unless fewer samples or another dtype are chosen."""
    check_source(inputs)
    grid = replace(grid, inputs=inputs)
    if not inputs.startswith("file:"):
        return grid
    rows, dim, dtype = file_facts(inputs.removeprefix("file:"))
    if list(chosen.get("dim", [dim])) != [dim]:
        raise ValueError(f"{inputs} holds {rows} x {dim} embeddings, asked for dim {chosen['dim']}")
    if not chosen_layout:
        grid = replace(grid, layouts=[(rows, 1, "local")])
    return replace(grid, dim=[dim], dtype=chosen.get("dtype", [dtype]))


def _check_rows(cases: Sequence[Case]) -> None:
    """Refuse a case that needs more samples than its file holds."""
    for case in cases:
        if case.inputs.startswith("file:"):
            rows, dim, _ = file_facts(case.inputs.removeprefix("file:"))
            if case.loss_batch > rows:
                asked = f"asked for {case.loss_batch} samples"
                raise ValueError(f"{case.inputs} holds {rows} x {dim} embeddings, {asked}")


def _with_setting(cases: Sequence[Case], name: str, value: Any) -> list[Case]:
    """Apply a hyperparameter of a loss, or an option of one implementation."""
    loss, way, setting = named_settings.owner(name, value)
    entry = {setting: named_settings.value(value)}
    if not any(_is_of(case, loss, way) for case in cases):
        of = f"{loss}.{way}" if way else loss
        raise ValueError(f"--set {name}={value}: {of} is not among the cases")
    return [_changed(case, entry, bool(way)) if _is_of(case, loss, way) else case for case in cases]


def _is_of(case: Case, loss: str, way: str) -> bool:
    return case.name == loss and way in ("", case.implementation)


def _changed(case: Case, entry: Mapping[str, Any], is_option: bool) -> Case:
    if is_option:
        return replace(case, options={**case.options, **entry})
    return replace(case, hyperparameters={**case.hyperparameters, **entry})
