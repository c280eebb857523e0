"""``pytest --benchmark``: run the benchmarks, and only them, gated by a committed baseline.

Installed with lossbench, it is there in every repository, and imports nothing of it before a
benchmark runs. Benchmarks are the tests that use pytest-benchmark's fixture: with the option they
run alone. Without it only lossbench's own, those of ``benchmark_case`` or marked ``lossbench``, are
left out. ``benchmark_case`` measures a case through that fixture, so ``--benchmark-json``,
``--benchmark-save`` and ``--benchmark-compare`` work as its users know them.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lossbench.bench.cases.case import Case
    from lossbench.bench.comparing.gates import Baseline

FOLDER = "tests/benchmarks"
BASELINE = "baseline.json"
_UNCHECKED = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of our own."""
    group = parser.getgroup("lossbench")
    group.addoption("--benchmark", action="store_true", help="run the benchmarks and only them")
    group.addoption(
        "--benchmark-update-baseline",
        action="store_true",
        help="with --benchmark: rewrite the baseline instead of comparing with it",
    )
    parser.addini("lossbench_benchmarks", "folder of the benchmarks", default=FOLDER)
    parser.addini("lossbench_baseline", f"file that gates compare with [{BASELINE} in that folder]")


def _folder(config: pytest.Config) -> Path:
    return config.rootpath / str(config.getini("lossbench_benchmarks"))


def _baseline(config: pytest.Config) -> Path:
    named = str(config.getini("lossbench_baseline") or "")
    return config.rootpath / named if named else _folder(config) / BASELINE


def pytest_configure(config: pytest.Config) -> None:
    """With no path given, run the folder of benchmarks, from wherever in the repository.

    Raises:
        pytest.UsageError: the baseline would be rewritten, but no benchmark runs.
    """
    if config.getoption("--benchmark-update-baseline") and not config.getoption("--benchmark"):
        raise pytest.UsageError("--benchmark-update-baseline needs --benchmark")
    config.addinivalue_line("markers", "lossbench: a benchmark that runs with --benchmark alone")
    folder = _folder(config)
    if not config.getoption("--benchmark") or not any(folder.glob("*.py")):
        return
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = [str(folder)]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--benchmark`` keep the benchmarks alone, without it all but our own."""
    runs = _is_benchmark if config.getoption("--benchmark") else _is_not_ours
    deselected = [item for item in items if not runs(item)]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if runs(item)]


def _is_benchmark(item: pytest.Item) -> bool:
    return "benchmark" in getattr(item, "fixturenames", ())


def _is_not_ours(item: pytest.Item) -> bool:
    ours = "benchmark_case" in getattr(item, "fixturenames", ())
    return not (ours or item.get_closest_marker("lossbench"))


@pytest.fixture(scope="session")
def lossbench_baseline(pytestconfig: pytest.Config) -> "Iterator[Baseline]":
    """The committed baseline; rewritten at the end of the session if that was asked for."""
    from lossbench.bench.comparing.gates import Baseline

    committed = Baseline(_baseline(pytestconfig))
    yield committed
    pytestconfig.stash[_UNCHECKED] = committed.unchecked
    if pytestconfig.getoption("--benchmark-update-baseline"):
        committed.write()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say which gates the baseline could not answer for."""
    unchecked = config.stash.get(_UNCHECKED, [])
    if unchecked:
        hint = "pytest --benchmark --benchmark-update-baseline adds this machine"
        terminalreporter.write_line(f"{len(unchecked)} gates not checked, first {unchecked[0]}")
        terminalreporter.write_line(hint)


@pytest.fixture
def benchmark_case(
    benchmark: Any, lossbench_baseline: "Baseline", pytestconfig: pytest.Config
) -> "Callable[[Case], None]":
    """A function that benchmarks a case, notes its counts in ``extra_info``, and gates it."""

    def run(case: "Case") -> None:
        from lossbench.bench.running.benchmarking import benchmark_and_describe

        record = benchmark_and_describe(benchmark, case)
        benchmark.extra_info.update(record)
        if pytestconfig.getoption("--benchmark-update-baseline"):
            lossbench_baseline.update(case.label, record)
            return
        problems = lossbench_baseline.check(case.label, record)
        if problems:
            hint = "if this is meant, run pytest --benchmark --benchmark-update-baseline"
            pytest.fail("\n".join([f"{case.label}:", *problems, hint]), pytrace=False)

    return run
