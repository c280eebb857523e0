"""The rooms of ``bench/``: each says what may be in it, and imports only those before it."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from lossbench.bench import ROOMS

BENCH = Path(__file__).parents[2] / "bench"
PACKAGES = ("losses", "kernels", "bench", "reports")
"""From the ground up."""
PLACES = {f"lossbench.bench.{room}": number for number, room in enumerate(ROOMS)}


def imported(file: Path) -> set[str]:
    """Modules that a file imports anywhere, in functions and for type checkers too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("lossbench.")}


def module_of(name: str) -> str:
    """The module of a name that is imported: itself, or what it is defined in."""
    path = BENCH.parent / Path(*name.split(".")[1:])
    is_module = path.is_dir() or path.with_suffix(".py").is_file()
    return name if is_module else name.rpartition(".")[0]


def name_of(file: Path) -> str:
    return ".".join(("lossbench", *file.relative_to(BENCH.parent).with_suffix("").parts))


def test_there_are_at_most_nine_and_no_module_beside_them():
    folders = {file.parent.name for file in BENCH.glob("*/__init__.py")}
    assert folders == set(ROOMS)
    assert len(ROOMS) <= 9
    assert [file.name for file in BENCH.glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_in_a_line_what_may_be_in_it(room):
    said = ast.get_docstring(ast.parse((BENCH / room / "__init__.py").read_text()))
    assert said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_those_before_it(room):
    for file in (BENCH / room).rglob("*.py"):
        for name in imported(file):
            used = next(
                (PLACES[place] for place in PLACES if f"{name}.".startswith(place + ".")), 0
            )
            assert used <= PLACES[f"lossbench.bench.{room}"], f"{file} imports {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_those_before_them(package):
    allowed = PACKAGES[: PACKAGES.index(package) + 1]
    for file in (BENCH.parent / package).rglob("*.py"):
        for name in imported(file):
            assert name.split(".")[1] in (*allowed, "__version__"), f"{file} imports {name}"


def test_no_module_imports_itself_over_others():
    uses = defaultdict(set)
    for file in BENCH.rglob("*.py"):
        uses[name_of(file)] = {module_of(name) for name in imported(file)} - {name_of(file)}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' -> '.join((*path, name))}"
        if name not in done:
            for other in uses[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in list(uses):
        visit(name, ())


def test_nothing_imports_a_command_line():
    for package in PACKAGES:
        for file in (BENCH.parent / package).rglob("*.py"):
            if file.name in ("__main__.py", "reference.py"):  # starts it; documents it
                continue
            lines = {name for name in imported(file) if name.split(".")[-1] == "cli"}
            assert not lines, f"{file} imports {lines}"
