"""Losses of others, benchmarked beside ours: implementations of a loss we know, or guests.

A contender is any callable or ``nn.Module`` of what its loss is given. Before it is measured it
must show that it behaves (a scalar of all inputs, the same twice, inputs untouched) and that it is
the named loss, up to a constant factor, which is reported. One that is there to be timed beside
another loss says with an attribute ``reference`` what it must equal instead. A guest
(``losses.outside``) is a loss that we do not know: it must behave alike, and its gradient must be
that of its value.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, replace

import torch
from torch import Tensor, nn

from lossbench import losses
from lossbench.bench.cases.case import Case
from lossbench.losses import outside

Loss = Callable[..., Tensor]


def make_cases(text: str, cases: Sequence[Case]) -> list[Case]:
    """The cases of a contender: each of ours of its loss, as published, computed its way.

    Args:
        text: ``NAME=package.module:attribute[?key=value]``. NAME is ``loss`` or ``loss.label``, or
            a label alone where only one loss is chosen.
        cases: what else is measured.

    Raises:
        ValueError: text of another form, a loss that is not chosen, or an attribute that is not
            there.
    """
    name, equals, target = text.partition("=")
    if not (name and equals and target):
        raise ValueError(f"--contender needs NAME=package.module:attribute, got {text!r}")
    chosen = list(dict.fromkeys(case.name for case in cases))
    known = {*losses.names(), *chosen}
    loss, _, label = name.partition(".")
    if loss not in known and len(chosen) == 1 and not label:
        loss, label = chosen[0], name
    losses.pick("loss", loss, known)
    if loss not in chosen:
        raise ValueError(f"--contender {name}: {loss!r} is not among the chosen losses")
    label = label or target.partition(".")[0].partition(":")[0]
    own = [case for case in cases if case.name == loss]
    if label in losses.spec(own[0].loss).implementations:
        raise ValueError(f"--contender {name}: {loss} has an implementation {label!r}; rename it")
    if any(case.implementation == label for case in own):
        raise ValueError(f"--contender {name}: there is another one of that name; rename it")
    resolve(target)
    rows = (
        replace(case, implementation=label, contender=target, options={})
        for case in own
        if not case.contender and not case.hyperparameters
    )
    unique = {tuple(sorted(row.describe().items())): row for row in rows}
    return list(unique.values())


def resolve(target: str) -> Loss:
    """The loss that ``package.module:attribute?key=value`` names, see ``losses.outside.find``.

    Raises:
        ValueError: not of this form, not there, or not callable.
    """
    path, keys = outside.split(target, "a contender")
    return outside.find(path, keys, "contender")


def specification(case: Case) -> Loss:
    """What the value of a case must equal: the loss's reference, or what a contender brings."""
    own = own_reference(case)
    return own or placed(losses.create(case.loss, **case.hyperparameters), case)


def placed(loss: losses.Loss, case: Case, device: str = "") -> losses.Loss:
    """A loss whose own tensors, such as a guest may have, are where those of the case are.

    Args:
        loss: to move.
        case: what it is called for.
        device: if not the case's.
    """
    device = device or case.device
    dtype = torch.promote_types(getattr(torch, case.dtype), torch.float32)
    own = [each for each in _tensors(loss) if each.is_floating_point()]
    there = all((each.device.type, each.dtype) == (device, dtype) for each in own)
    return loss if there else loss.to(device, dtype)  # tensors without values cannot be moved


def _tensors(loss: nn.Module) -> list[Tensor]:
    return [*loss.parameters(), *loss.buffers()]


def own_reference(case: Case) -> Loss | None:
    """What a contender or a guest says that it must equal."""
    spec = losses.spec(case.loss)
    if not (case.contender or spec.origin):
        return None
    found = resolve(case.contender) if case.contender else guest(case)
    own: Loss | None = getattr(found, "reference", None)
    return own


def guest(case: Case) -> Loss:
    """What a guest's case names."""
    spec = losses.spec(case.loss)
    keys = asdict(spec.configure(**case.hyperparameters))
    return outside.find(spec.origin, keys, f"loss {spec.name}")


def is_foreign(case: Case) -> bool:
    """Whether code that is not ours decides what a case computes."""
    return bool(_origins(case))


def is_examined(case: Case) -> bool:
    """Whether ``examine`` says what a case is; registered code of our losses must equal them."""
    return bool(case.contender) or not losses.spec(case.loss).is_ours


def foreign_code(case: Case) -> list[str]:
    """What the results of a case depend on beside our code: fingerprints of what is not ours."""
    return [outside.fingerprint(origin) for origin in _origins(case)]


def _origins(case: Case) -> list[str]:
    spec = losses.spec(case.loss)
    found = [case.contender, spec.origin, *sorted(spec.modules(case.implementation))]
    return [origin for origin in found if origin]


def in_fp64(loss: Loss) -> Loss:
    """The same loss; of one that has tensors of its own a copy, whose are of fp64."""
    if not isinstance(loss, nn.Module) or not _tensors(loss):
        return loss
    return deepcopy(loss).double()
