"""Command-line options that choose cases, shared by every command that takes cases."""

import inspect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.console import parse_list
from bench.launch import choose_launcher

if TYPE_CHECKING:
    from bench.case import Case
    from bench.pretraining.steps import Step
    from bench.suites import Grid, Layout

Text = str | None
SUITE_HELP = "Named grid: smoke, efficiency, scaling, implementations, distributed, gpu."
INPUTS_HELP = "random, aligned, collapsed, digits or file:PATH [random]."

DISTRIBUTION_HELP = "How devices share a loss: local, gather, allreduce, gram [local]."


def _option(flag: str, help_: str) -> Any:
    return typer.Option(flag, help=help_, show_default=False)


def select_cases(
    suite: Annotated[Text, _option("--suite", SUITE_HELP)] = None,
    loss: Annotated[Text, _option("--loss", "Losses [all].")] = None,
    implementation: Annotated[Text, _option("--implementation", "Implementations [all].")] = None,
    batch: Annotated[Text, _option("--batch", "Samples per device, N [256].")] = None,
    dim: Annotated[Text, _option("--dim", "Embedding dimensions, D [8192].")] = None,
    dtype: Annotated[Text, _option("--dtype", "float64, float32, bfloat16, float16.")] = None,
    pass_: Annotated[Text, _option("--pass", "forward, forward_grad, step [step].")] = None,
    world: Annotated[Text, _option("--world", "Numbers of devices, W: 1,8 or 8..1024 [1].")] = None,
    distribution: Annotated[Text, _option("--distribution", DISTRIBUTION_HELP)] = None,
    set_: Annotated[
        list[str], _option("--set", "Hyperparameters: smi.dependency=correlation.")
    ] = [],  # noqa: B006 - as below
    inputs: Annotated[Text, _option("--inputs", INPUTS_HELP)] = None,
    device: Annotated[Text, _option("--device", "cpu or cuda [cuda if there is one].")] = None,
    contender: Annotated[
        list[str],
        _option("--contender", "A loss of yours: LOSS.NAME=module:attribute[?key=value]."),
    ] = [],  # noqa: B006 - Typer's way to say that it may be given again
    there: str = "",
) -> "list[Case]":
    """Cases of a suite, or of comma-separated lists; a list replaces what the suite says.

    ``there``, which is no option: a device that need not be here.

    Raises:
        ValueError: nothing chosen, or a value that no case accepts.
    """
    from bench import third_parties
    from bench.contenders import make_cases
    from bench.suites import Grid
    from bench.suites import suite as named

    if not any((suite, loss, batch, dim, inputs)):
        raise ValueError("choose cases: --suite efficiency, or lists: --loss smi --batch 256")
    lists: dict[str, Any] = {
        "loss": _split(loss),
        "implementation": _split(implementation),
        "dim": parse_numbers("--dim", dim),
        "dtype": _split(dtype),
        "pass_": _split(pass_),
    }
    chosen = {name: values for name, values in lists.items() if values}
    grids = named(suite) if suite else (Grid(),)
    spread = (
        parse_numbers("--batch", batch),
        parse_numbers("--world", world),
        _split(distribution),
    )
    cases: list[Case] = []
    for grid in grids:
        grid = replace(grid, device=there or present_device(device), **chosen)
        if inputs:
            grid = _with_inputs(grid, inputs, chosen, any(spread))
        grid = replace(grid, layouts=_layouts(grid.layouts, *spread))
        cases += [case for case in grid.cases() if case not in cases]
    if suite == "gpu" and not there:
        cases += third_parties.beside(cases)
    for text in contender:
        cases += make_cases(text, cases)
    for text in set_:
        cases = _with_settings(cases, text)
    _check_rows(cases)
    return cases


def takes_cases(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: replace a command's ``cases`` parameter by the options of ``select_cases``.

    Of a command with an option ``preset``, ``cases`` are the steps of one, where it is given.
    """
    own = inspect.signature(command).parameters
    shared = dict(inspect.signature(select_cases).parameters)
    del shared["there"]

    def wrapped(**options: Any) -> Any:
        from bench.suites import PAIRED

        chosen: dict[str, Any] = {}
        if "paired" in own and options["suite"] in PAIRED:
            options.update(paired=True, accuracy=True)
        if "gpu" in own and (options["gpu"] or options["gpu_spec"]):
            if options["device"]:
                raise ValueError("--device is for what is here; leave it out with --gpu")
            chosen["there"] = "cuda"
        if options.get("launcher"):
            chosen["there"] = options["launcher"].there(options["device"])
        chosen.update({name: options.pop(name) for name in shared})
        preset = options.get("preset")
        cases = _steps(preset, **chosen) if preset else select_cases(**chosen)
        return command(cases=cases, **options)

    others = [own[name] for name in own if name != "cases"]
    return _present(wrapped, command, [*shared.values(), *others])


def takes_launcher(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: replace a command's ``launcher`` parameter by the options that make one."""
    own = inspect.signature(command).parameters
    shared = inspect.signature(choose_launcher).parameters

    def wrapped(**options: Any) -> Any:
        chosen = choose_launcher(**{name: options.pop(name) for name in shared})
        return command(launcher=chosen, **options)

    others = [own[name] for name in own if name != "launcher"]
    return _present(wrapped, command, [*others, *shared.values()])


def _present(
    wrapped: Callable[..., Any], command: Callable[..., Any], options: Sequence[inspect.Parameter]
) -> Callable[..., Any]:
    """Make Typer take ``wrapped`` for ``command`` with these options."""
    keyword_only = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
    wrapped.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    return wrapped


def _steps(preset: str, there: str = "", **chosen: Any) -> "list[Step]":
    """Steps of a preset, by the options of ``select_cases`` that go with one."""
    from bench.pretraining.steps import select_steps

    for name in ("suite", "dim", "dtype", "pass_", "inputs", "contender"):
        if chosen.pop(name):
            flag = name.strip("_")
            raise ValueError(f"a preset says what a step is: leave --{flag} out, or --set it")
    device = there or present_device(chosen["device"])
    return select_steps(preset, **{**chosen, "device": device})


def _split(text: Text) -> list[str]:
    if text is None:
        return []
    return parse_list("a list option", text)


def parse_numbers(flag: str, text: Text) -> list[int]:
    """The whole numbers of a comma-separated list, in which 8..64 is 8,16,32,64; none of None."""
    try:
        return [number for part in _split(text) for number in _numbers(part)]
    except ValueError:
        raise ValueError(
            f"{flag} needs whole numbers such as 256,2048, or powers of two such as 8..1024, "
            f"got {text!r:.60}"
        ) from None


def _numbers(text: str) -> list[int]:
    """A number, or the powers of two from one to another.

    Raises:
        ValueError: neither.
    """
    first, dots, last = text.partition("..")
    if not dots:
        return [int(text)]
    low, high = int(first), int(last)
    if not 0 < low <= high or low & (low - 1) or high & (high - 1):
        raise ValueError(text)
    return [1 << power for power in range(low.bit_length() - 1, high.bit_length())]


def _layouts(
    layouts: "Sequence[Layout]",
    batches: Sequence[int],
    worlds: Sequence[int],
    distributions: Sequence[str],
) -> "list[Layout]":
    """Replace what is given in each of ``layouts``, and keep the rest of it."""
    replaced = (
        itertools.product(batches or [batch], worlds or [world], distributions or [distribution])
        for batch, world, distribution in layouts
    )
    return list(dict.fromkeys(itertools.chain.from_iterable(replaced)))


def present_device(name: Text) -> str:
    """``cpu`` or ``cuda``; the latter if there is one and nothing is asked for.

    Raises:
        ValueError: another name, or a device that is not here.
    """
    import torch

    from bench.case import DEVICES
    from losses import pick

    if name:
        pick("device", name, DEVICES)

    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ValueError("no CUDA device here; use --device cpu")
    return name or ("cuda" if has_cuda else "cpu")


def _with_inputs(grid: "Grid", inputs: str, chosen: dict[str, Any], chosen_layout: bool) -> "Grid":
    """A file says what N, D and the dtype are, unless fewer samples or another dtype are chosen."""
    from bench.inputs import check_source, file_facts

    check_source(inputs)
    grid = replace(grid, inputs=inputs)
    if not inputs.startswith("file:"):
        return grid
    rows, dim, dtype = file_facts(inputs.removeprefix("file:"))
    if chosen.get("dim", [dim]) != [dim]:
        raise ValueError(f"{inputs} holds {rows} x {dim} embeddings, asked for dim {chosen['dim']}")
    if not chosen_layout:
        grid = replace(grid, layouts=[(rows, 1, "local")])
    return replace(grid, dim=[dim], dtype=chosen.get("dtype", [dtype]))


def _check_rows(cases: "list[Case]") -> None:
    """Refuse a case that needs more samples than its file holds."""
    from bench.inputs import file_facts

    for case in cases:
        if case.inputs.startswith("file:"):
            rows, dim, _ = file_facts(case.inputs.removeprefix("file:"))
            if case.loss_batch > rows:
                asked = f"asked for {case.loss_batch} samples"
                raise ValueError(f"{case.inputs} holds {rows} x {dim} embeddings, {asked}")


def _with_settings(cases: "list[Case]", text: str) -> "list[Case]":
    """Apply ``loss.name=value``, or ``loss.implementation.name=value`` to one implementation."""
    for setting in _split(text):
        loss, way, entry = parse_setting(setting)
        chosen = [c for c in cases if c.loss == loss and way in ("", c.implementation)]
        if not chosen:
            owner = f"{loss}.{way}" if way else loss
            raise ValueError(f"--set {setting}: {owner} is not among the cases")
        cases = [_with_setting(c, entry, bool(way)) if c in chosen else c for c in cases]
    return cases


def parse_setting(text: str) -> tuple[str, str, dict[str, float | str]]:
    """Loss, implementation ("" for any) and setting of ``loss[.implementation].name=value``.

    Raises:
        ValueError: another form.
    """
    target, equals, value = text.partition("=")
    *owner, name = target.split(".")
    if not (equals and name and len(owner) in (1, 2)):
        raise ValueError(f"--set needs loss.name=value, got {text!r}")
    return owner[0], "".join(owner[1:]), {name: _value(value)}


def _with_setting(case: "Case", entry: dict[str, Any], is_option: bool) -> "Case":
    if is_option:
        return replace(case, options={**case.options, **entry})
    return replace(case, hyperparameters={**case.hyperparameters, **entry})


def _value(text: str) -> float | str:
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else number  # 2 and 2.0 are one setting
