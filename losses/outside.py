"""What is found in a module of anybody's, by name: ``package.module:attribute?key=value``.

A *guest* is a loss of its own from there, ``mine=package.module:attribute``: it is in no registry,
and needs nothing of this project. It is called with two views, or with what its attribute
``inputs`` declares, and returns a scalar.
"""

import getpass
import hashlib
import importlib
import importlib.util
import inspect
import pickle
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib import metadata
from keyword import iskeyword
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import torch
from torch import Tensor, nn

from lossbench.losses.compiled import Compiled
from lossbench.losses.inputs import Input, parse
from lossbench.losses.naming import pick

Found = Callable[..., Tensor]
FORM = "package.module:attribute[?key=value]"
SEED = 1
"""Of the random numbers that a guest's tensors are made of."""
BY_VALUE = ".pickle"
"""What has no name in any module, such as a function of a notebook, is found in such a file."""


class NotScalarError(ValueError):
    """A loss returns something else than a scalar tensor."""


def split(target: str, what: str) -> tuple[str, dict[str, str]]:
    """Path and keys of ``package.module:attribute?key=value``.

    Args:
        target: the text.
        what: what it is, for the error.

    Raises:
        ValueError: another form.
    """
    path, _, query = target.partition("?")
    module, colon, attribute = path.partition(":")
    if not ((module and colon and attribute) or path.endswith(BY_VALUE)):
        raise ValueError(f"{what} is {FORM}, got {target!r}")
    keys = dict(parse_qsl(query, keep_blank_values=True))
    for key in keys:
        if not key.isidentifier() or iskeyword(key):
            raise ValueError(f"{what} {path}: {key!r} is not the name of an argument")
    return path, keys


def find(path: str, keys: Mapping[str, Any], what: str) -> Found:
    """What ``package.module:attribute`` names, made of keys and called with two views.

    A class is called with the keys (without any where there are none), and so is any other callable
    that is given keys: it is taken for a factory. A value ``module:attribute(key=value)`` is called
    first. Where there is a parameter ``ref_emb``, the second view is passed as that
    (pytorch-metric-learning's convention).

    Args:
        path: where it is.
        keys: arguments, as text or as they are.
        what: what it is, for the error.

    Raises:
        ValueError: not there, not callable, or not with these keys or two views.
    """
    found = look_up(path, what)
    if inspect.isclass(found) or keys:
        found = _made(found, path, keys, what)
    if not callable(found):
        raise ValueError(f"{path} is not callable")
    return _of_two_views(found)


def look_up(path: str, what: str) -> Any:
    """What ``package.module:attribute`` names, or a file of ``describe`` holds.

    Args:
        path: where it is.
        what: what it is, for the error.

    Raises:
        ValueError: not there.
    """
    if path.endswith(BY_VALUE):
        try:
            return pickle.loads(Path(path).read_bytes())
        except Exception as error:  # whatever unpickling somebody's object raises
            raise ValueError(f"{what} {path} cannot be read: {error}") from error
    module, _, attribute = path.partition(":")
    found = import_module(module, f"{what} module")
    for name in attribute.split("."):
        if not hasattr(found, name):
            pick(f"attribute of {module}", name, [n for n in dir(found) if n[0] != "_"])
        found = getattr(found, name)
    return found


def import_module(name: str, what: str) -> Any:
    """A module of the user's.

    Raises:
        ValueError: it cannot be imported.
    """
    _look_here()
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever a user's module raises
        raise ValueError(f"{what} {name} cannot be imported: {error}") from error


def _look_here() -> None:
    """Find the user's own files, as ``python -m`` would."""
    if "" not in sys.path:
        sys.path.insert(0, "")


def _made(found: Any, path: str, keys: Mapping[str, Any], what: str) -> Any:
    shown = ", ".join(f"{key}={value}" for key, value in keys.items())
    try:
        return found(**{key: _value(value, what) for key, value in keys.items()})
    except Exception as error:
        is_factory = keys and not inspect.isclass(found)
        hint = f" (keys call it as a factory: {path}({shown}) is to return the loss)"
        raise ValueError(
            f"{what} {path} cannot be made{hint if is_factory else ''}: {error}"
        ) from error


def _value(text: Any, what: str) -> Any:
    """A number, true, false, none, ``module:attribute(key=value,...)``, or else the text."""
    if not isinstance(text, str):
        return text
    path, opening, arguments = text.removesuffix(")").partition("(")
    if ":" in path:
        pairs = (part.partition("=") for part in arguments.split(",") if opening and part)
        return look_up(path, what)(**{key: _value(value, what) for key, _, value in pairs})
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _of_two_views(found: Callable[..., Tensor]) -> Found:
    called = found.forward if isinstance(found, nn.Module) else found
    try:
        named = "ref_emb" in inspect.signature(called).parameters
    except (TypeError, ValueError):  # built in
        named = False
    return (lambda z_a, z_b: found(z_a, ref_emb=z_b)) if named else found


def _terms(found: Found, *inputs: Tensor) -> dict[str, Tensor]:
    return {"loss": found(*inputs)}


class Guest:
    """An implementation of a guest: what is found, as it is or compiled.

    Args:
        name: of the loss.
        path: where it is found.
        compiled: whether it runs through ``torch.compile``.
    """

    def __init__(self, name: str, path: str, compiled: bool = False) -> None:
        self.name = name
        self.path = path
        self._run = Compiled(_terms) if compiled else _terms

    def make(self, keys: Mapping[str, Any]) -> "Terms":
        """A new one, with parameters and buffers of its own: the same random numbers each time.

        Raises:
            ValueError: not there, not callable, or not with these keys; or its attribute ``inputs``
                declares what is not understood.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            found = find(self.path, keys, f"loss {self.name}")
        declarations = getattr(found, "inputs", None)
        inputs = None if declarations is None else parse(declarations, keys, self.name)
        return Terms(self.name, found, self._run, inputs)

    def __call__(self, hyperparameters: Any, *inputs: Tensor) -> dict[str, Tensor]:
        """The value, by a new one."""
        return self.make(asdict(hyperparameters))(hyperparameters, *inputs)

    def inputs(self, hyperparameters: Any) -> Sequence[Input] | None:
        """What it is given, if it says so; raises as ``make`` does."""
        return _inputs(self, hyperparameters)


@cache
def _inputs(guest: Guest, hyperparameters: Any) -> Sequence[Input] | None:
    return guest.make(asdict(hyperparameters)).inputs


class AutoGuest(Guest):
    """``auto`` of a guest: there is nothing to weigh."""

    def __call__(
        self, hyperparameters: Any, *inputs: Tensor, memory_bytes: int | None = None
    ) -> dict[str, Tensor]:
        """The value, by a new one."""
        return super().__call__(hyperparameters, *inputs)


class Terms(nn.Module):
    """What a guest computes, in the form of the losses of the registry: a loss of one term.

    Args:
        name: of the loss.
        found: the guest.
        run: calls it.
        inputs: what it is given, if it says so.
    """

    def __init__(
        self,
        name: str,
        found: Found,
        run: Callable[..., dict[str, Tensor]],
        inputs: Sequence[Input] | None,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.name = name
        self.found = found
        self._run = run

    def forward(self, hyperparameters: Any, *inputs: Tensor) -> dict[str, Tensor]:
        """The value.

        Raises:
            NotScalarError: it is something else.
        """
        terms = self._run(self.found, *inputs)
        value = terms["loss"]
        if not isinstance(value, Tensor) or value.ndim:
            got = (
                f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            )
            raise NotScalarError(f"{self.name} returns {got}, not a scalar tensor")
        return terms


def describe(name: str, loss: Any) -> str:
    """The text that another process finds a loss by: by its name in a module, else by its value.

    Args:
        name: of the guest.
        loss: a function, class or module; or the text of where it is found.

    Returns:
        ``name=package.module:attribute``, or ``name=PATH`` of a file that holds it.

    Raises:
        ValueError: no such thing, or one that cannot be written to a file.
    """
    if isinstance(loss, str):
        return f"{name}={loss}"
    if not callable(loss):
        raise ValueError(f"loss {name} must be callable, got {type(loss).__name__}")
    module, attribute = getattr(loss, "__module__", ""), getattr(loss, "__qualname__", "")
    if module != "__main__" and _is_found(loss, module, attribute):
        return f"{name}={module}:{attribute}"
    return f"{name}={_written(name, loss)}"


def _is_found(loss: Any, module: str, attribute: str) -> bool:
    found: Any = sys.modules.get(module)
    for part in attribute.split("."):
        found = getattr(found, part, None)
    return found is loss


def _written(name: str, loss: Any) -> Path:
    """A file that holds a loss; equal ones have the same."""
    import cloudpickle  # type: ignore[import-untyped]  # nothing else needs it

    try:
        content = cloudpickle.dumps(loss)
    except Exception as error:  # whatever pickling somebody's object raises
        raise ValueError(f"loss {name} cannot be sent to other processes: {error}") from error
    folder = Path(tempfile.gettempdir()) / f"lossbench-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}{BY_VALUE}"
    path.write_bytes(content)
    return path


def fingerprint(path: str) -> str:
    """What a record of it depends on: where it is found, its version and its source files."""
    digest = hashlib.sha256(f"{path} {version(path)}".encode())
    for file in _sources(path):
        digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()[:16]


def _sources(path: str) -> list[Path]:
    if path.endswith(BY_VALUE):
        return [Path(path)]
    _look_here()
    try:
        module = importlib.util.find_spec(_package(path))  # which imports nothing
    except (ImportError, ValueError):
        module = None
    if module is None:
        return []
    folders = [Path(folder) for folder in module.submodule_search_locations or ()]
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    return files or [Path(module.origin or "")]


@cache
def version(path: str) -> str | None:
    """Version of the distribution that its module is installed by, if it is."""
    names = metadata.packages_distributions().get(_package(path))
    return metadata.version(names[0]) if names else None


def _package(path: str) -> str:
    return path.partition(":")[0].partition(".")[0]
