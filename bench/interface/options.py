"""Command-line options that choose cases, steps and jobs: text to lists. Imports no torch."""

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lossbench.bench.interface.parsing import parse_list, parse_numbers, parse_pairs
from lossbench.bench.running.launch import JOBS, Launcher, make_launcher

if TYPE_CHECKING:
    from lossbench.bench.cases.case import Case
    from lossbench.bench.pretraining.steps import Step

Text = str | None
CASES, SPREAD, JOBS_PANEL = "Which cases", "Many devices", "Many jobs"
"""Groups of options in ``--help``."""
SUITE_HELP = (
    "Named grid: smoke, efficiency, scaling, implementations, distributed, gpu-check, "
    "gpu-headline, gpu."
)
BATCH_HELP = "Samples per device, N: 64,256, or powers of two 64..1024 (default: 256)."
DIM_HELP = "Embedding dimensions, D: 512,8192, or powers of two 512..8192 (default: 8192)."
DTYPE_HELP = "float64, float32, bfloat16, float16 (default: float32)."
INPUTS_HELP = "random, aligned, collapsed, digits or file:PATH (default: random)."
LOSS_HELP = "Losses; one of yours is NAME=module:attribute?key=value (default: all of ours)."
CONTENDER_HELP = (
    "A loss of ours as you compute it: LOSS.NAME=module:attribute?key=value. May be given again."
)
PLUGIN_HELP = "Modules of yours that register losses or implementations: package.module."
SET_HELP = "A setting, smi.lambda_=2 or smi.chunked.workspace_bytes=65536. May be given again."
DISTRIBUTION_HELP = "How devices share a loss: local, gather, allreduce, gram (default: local)."
WORLD_HELP = "Numbers of devices, W: 1,8, or powers of two 8..1024 (default: 1)."


def option(flag: str, help_: str, panel: str = CASES, shows_default: bool = False) -> Any:
    """A Typer option in a group of ``--help``; its help says its default, or it is shown."""
    return typer.Option(flag, help=help_, show_default=shows_default, rich_help_panel=panel)


def case_options(
    suite: Annotated[Text, option("--suite", SUITE_HELP)] = None,
    loss: Annotated[Text, option("--loss", LOSS_HELP)] = None,
    implementation: Annotated[
        Text, option("--implementation", "Ways to compute them (default: all).")
    ] = None,
    batch: Annotated[Text, option("--batch", BATCH_HELP)] = None,
    dim: Annotated[Text, option("--dim", DIM_HELP)] = None,
    dtype: Annotated[Text, option("--dtype", DTYPE_HELP)] = None,
    pass_: Annotated[Text, option("--pass", "forward, forward_grad, step (default: step).")] = None,
    inputs: Annotated[Text, option("--inputs", INPUTS_HELP)] = None,
    set_: Annotated[list[str], option("--set", SET_HELP)] = [],  # noqa: B006 - Typer's way to say
    contender: Annotated[list[str], option("--contender", CONTENDER_HELP)] = [],  # noqa: B006
    plugin: Annotated[Text, option("--plugin", PLUGIN_HELP)] = None,
    device: Annotated[
        Text, option("--device", "cpu or cuda (default: cuda if there is one).")
    ] = None,
    world: Annotated[Text, option("--world", WORLD_HELP, SPREAD)] = None,
    distribution: Annotated[Text, option("--distribution", DISTRIBUTION_HELP, SPREAD)] = None,
) -> dict[str, Any]:
    """What the options choose, as ``cases.selection.select_cases`` takes it.

    Raises:
        ValueError: text that is no list, number or setting.
    """
    use_plugins(parse_list("--plugin", plugin))
    return {
        "suite": suite,
        "loss": parse_list("--loss", loss),
        "implementation": parse_list("--implementation", implementation),
        "batch": parse_numbers("--batch", batch),
        "dim": parse_numbers("--dim", dim),
        "dtype": parse_list("--dtype", dtype),
        "pass_": parse_list("--pass", pass_),
        "world": parse_numbers("--world", world),
        "distribution": parse_list("--distribution", distribution),
        "settings": set_,
        "inputs": inputs,
        "device": device,
        "contender": contender,
    }


def use_plugins(modules: Sequence[str]) -> None:
    """Import modules that register losses.

    Raises:
        ValueError: one cannot be imported.
    """
    if modules:
        from lossbench.losses import plugins

        plugins.use(modules)


def takes_cases(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: replace a command's ``cases`` parameter by the options of ``case_options``.

    Of a command with an option ``preset``, ``cases`` are the steps of one, where it is given.
    """
    own = inspect.signature(command).parameters
    shared = inspect.signature(case_options).parameters

    def wrapped(**options: Any) -> Any:
        from lossbench.bench.cases.suites import PAIRED

        there = ""
        if "paired" in own and options["suite"] in PAIRED:
            options.update(paired=True, accuracy=True)
        if "gpu" in own and (options["gpu"] or options["gpu_spec"]):
            if options["device"]:
                raise ValueError("--device is for what is here; leave it out with --gpu")
            there = "cuda"
        if options.get("dry_run"):
            there = options["device"] or "cuda"
        if options.get("launcher"):
            there = options["launcher"].there(options["device"])
        chosen = case_options(**{name: options.pop(name) for name in shared})
        cases = _steps if options.get("preset") else _cases
        return command(cases=cases(chosen, there, options), **options)

    others = [own[name] for name in own if name != "cases"]
    return _present(wrapped, command, [*shared.values(), *others])


def _cases(chosen: dict[str, Any], there: str, options: dict[str, Any]) -> "list[Case]":
    from lossbench.bench.cases.selection import select_cases

    texts = [text for given in chosen.pop("settings") for text in parse_list("--set", given)]
    settings = parse_pairs("--set", texts, "loss.name=value")
    return select_cases(**chosen, settings=settings, there=there)


def _steps(chosen: dict[str, Any], there: str, options: dict[str, Any]) -> "list[Step]":
    from lossbench.bench.pretraining.steps import select_steps

    settings = parse_pairs("--set", chosen.pop("settings"), "NAME=VALUE such as precision=bf16")
    return select_steps(options["preset"], **chosen, settings=settings, there=there)


def takes_launcher(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: replace a command's ``launcher`` parameter by the options that make one."""
    own = inspect.signature(command).parameters
    shared = inspect.signature(launcher_options).parameters

    def wrapped(**options: Any) -> Any:
        chosen = launcher_options(**{name: options.pop(name) for name in shared})
        return command(launcher=chosen, **options)

    others = [own[name] for name in own if name != "launcher"]
    return _present(wrapped, command, [*others, *shared.values()])


def launcher_options(
    launcher: Annotated[
        str,
        option("--launcher", "Run in jobs: slurm, or local to try that here.", JOBS_PANEL),
    ] = "",
    jobs: Annotated[
        int | None,
        option("--jobs", f"With --launcher: jobs to share the work (default: {JOBS}).", JOBS_PANEL),
    ] = None,
    slurm: Annotated[
        list[str],
        option(
            "--slurm",
            "With --launcher: of each job, partition=gpu, time=60 (minutes). May be given again.",
            JOBS_PANEL,
        ),
    ] = [],  # noqa: B006 - Typer's way to say that it may be given again
) -> Launcher | None:
    """What starts jobs; None: the command runs here.

    Raises:
        ValueError: options that do not go together, or that cannot be met here.
    """
    parameters = parse_pairs("--slurm", slurm, "NAME=VALUE such as time=60")
    return make_launcher(launcher, jobs, parameters)


def _present(
    wrapped: Callable[..., Any], command: Callable[..., Any], options: Sequence[inspect.Parameter]
) -> Callable[..., Any]:
    """Make Typer take ``wrapped`` for ``command`` with these options."""
    keyword_only = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
    wrapped.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    return wrapped
