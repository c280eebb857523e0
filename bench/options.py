"""Command-line options that choose cases, shared by every command that takes cases."""

import inspect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bench.case import Case
    from bench.suites import Grid

Text = str | None


def _option(flag: str, help_: str) -> Any:
    return typer.Option(flag, help=help_, show_default=False)


def select_cases(
    suite: Annotated[Text, _option("--suite", "Named grid: smoke, efficiency, scaling.")] = None,
    loss: Annotated[Text, _option("--loss", "Losses [all].")] = None,
    implementation: Annotated[Text, _option("--implementation", "Implementations [all].")] = None,
    batch: Annotated[Text, _option("--batch", "Samples per device, N [256].")] = None,
    dim: Annotated[Text, _option("--dim", "Embedding dimensions, D [8192].")] = None,
    dtype: Annotated[Text, _option("--dtype", "float64, float32, bfloat16, float16.")] = None,
    pass_: Annotated[Text, _option("--pass", "forward, forward_grad, step [step].")] = None,
    world: Annotated[Text, _option("--world", "Numbers of devices, W [1].")] = None,
    distribution: Annotated[Text, _option("--distribution", "local, gather [local].")] = None,
    set_: Annotated[Text, _option("--set", "Hyperparameters: smi.dependency=correlation.")] = None,
    inputs: Annotated[Text, _option("--inputs", "random, digits or file:PATH [random].")] = None,
    device: Annotated[Text, _option("--device", "cpu or cuda [cuda if there is one].")] = None,
) -> "list[Case]":
    """Cases of a suite, or of comma-separated lists; a list replaces what the suite says.

    Raises:
        ValueError: nothing chosen, or a value that no case accepts.
    """
    from bench.suites import Grid
    from bench.suites import suite as named

    if not any((suite, loss, batch, dim, inputs)):
        raise ValueError("choose cases: --suite efficiency, or lists: --loss smi --batch 256")
    lists: dict[str, Any] = {
        "loss": _split(loss),
        "implementation": _split(implementation),
        "dim": _numbers("--dim", dim),
        "dtype": _split(dtype),
        "pass_": _split(pass_),
        "layouts": _layouts(
            _numbers("--batch", batch), _numbers("--world", world), _split(distribution)
        ),
    }
    chosen = {name: values for name, values in lists.items() if values}
    grid = replace(named(suite) if suite else Grid(), device=_device(device), **chosen)
    if inputs:
        grid = _with_inputs(grid, inputs, chosen)
    return _with_hyperparameters(list(grid.cases()), set_)


def takes_cases(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: replace a command's ``cases`` parameter by the options of ``select_cases``."""
    own = inspect.signature(command).parameters
    shared = inspect.signature(select_cases).parameters

    def wrapped(**options: Any) -> Any:
        cases = select_cases(**{name: options.pop(name) for name in shared})
        return command(cases=cases, **options)

    parameters = [*shared.values(), *(own[name] for name in own if name != "cases")]
    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    wrapped.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    return wrapped


def _split(text: Text) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _numbers(flag: str, text: Text) -> list[int]:
    try:
        return [int(part) for part in _split(text)]
    except ValueError:
        raise ValueError(f"{flag} needs whole numbers such as 256,2048, got {text!r}") from None


def _layouts(
    batches: Sequence[int], worlds: Sequence[int], distributions: Sequence[str]
) -> list[tuple[int, int, str]]:
    if not (batches or worlds or distributions):
        return []
    return list(itertools.product(batches or [256], worlds or [1], distributions or ["local"]))


def _device(name: Text) -> str:
    import torch

    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ValueError("no CUDA device here; use --device cpu")
    return name or ("cuda" if has_cuda else "cpu")


def _with_inputs(grid: "Grid", inputs: str, chosen: dict[str, Any]) -> "Grid":
    """A file says what N and D are, unless fewer of its samples are asked for."""
    from bench.inputs import check_source, file_shape

    check_source(inputs)
    if not inputs.startswith("file:"):
        return replace(grid, inputs=inputs)
    rows, dim = file_shape(inputs.removeprefix("file:"))
    layouts = chosen.get("layouts") or [(rows, 1, "local")]
    dims = chosen.get("dim") or [dim]
    too_many = [b * w for b, w, how in layouts if b * (w if how == "gather" else 1) > rows]
    if too_many or dims != [dim]:
        asked = f"{max(too_many, default=rows)} x {dims[0]}"
        raise ValueError(f"{inputs} holds {rows} x {dim} embeddings, asked for {asked}")
    return replace(grid, inputs=inputs, layouts=layouts, dim=dims)


def _with_hyperparameters(cases: "list[Case]", text: Text) -> "list[Case]":
    """Apply ``loss.name=value`` settings to the cases of that loss."""
    for setting in _split(text):
        target, equals, value = setting.partition("=")
        loss, dot, name = target.partition(".")
        if not (equals and dot):
            raise ValueError(f"--set needs loss.name=value, got {setting!r}")
        if loss not in {case.loss for case in cases}:
            raise ValueError(f"--set {setting}: {loss!r} is not among the chosen losses")
        cases = [
            replace(case, hyperparameters={**case.hyperparameters, name: _value(value)})
            if case.loss == loss
            else case
            for case in cases
        ]
    return cases


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
