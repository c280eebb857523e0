"""What a case should need on a device, without running it: time, memory, communication."""

from dataclasses import dataclass, replace
from typing import Any

from lossbench import losses
from lossbench.bench.cases.calls import exchanges
from lossbench.bench.cases.case import Case, element_bytes, input_bytes
from lossbench.bench.counting.growth import Growth
from lossbench.bench.counting.trace import FUSED, GENERATED, Trace
from lossbench.bench.counting.work import Work, followed, with_batch
from lossbench.bench.predicting.ceilings import TERMS, Ceilings
from lossbench.bench.predicting.links import Link
from lossbench.bench.records.failures import guarded


@dataclass(frozen=True)
class Device:
    """What is predicted for.

    Attributes:
        name: short name.
        title: full name.
        memory_bytes: of it.
        ceilings: measured or assumed.
        assumption: where the ceilings come from, in a sentence.
        link: to other devices; None: nothing is asked of it.
    """

    name: str
    title: str
    memory_bytes: float
    ceilings: Ceilings
    assumption: str
    link: Link | None = None


def predict_times(done: Work, ceilings: Ceilings) -> dict[str, Any]:
    """Roofline time of one evaluation.

    Returns:
        ``predicted_ms``: each operation takes the longest of its three terms;
        ``predicted_compute_ms``, ``predicted_memory_ms`` and ``predicted_launch_ms``: each term of
        all operations; ``predicted_bound``: the term that most of the time is spent on.
    """
    total = done.sums(lambda each: _sums(each, ceilings))
    terms, bound = total[: len(TERMS)], total[len(TERMS) :]
    return {
        "predicted_ms": sum(bound),
        **{f"predicted_{name}_ms": ms for name, ms in zip(TERMS, terms, strict=True)},
        "predicted_bound": TERMS[bound.index(max(bound))],
    }


def _known(times: dict[str, Any], uncounted: str) -> dict[str, Any]:
    """Without a time of arithmetic, where products may be among what is not counted."""
    return {**times, "predicted_compute_ms": None} if uncounted else times


def _sums(trace: Trace, ceilings: Ceilings) -> list[float]:
    """Each term of all operations, then the time of those that each term binds."""
    terms, bound = [0.0] * len(TERMS), [0.0] * len(TERMS)
    for operation, times in trace.kinds.items():
        each = ceilings.terms_ms(operation)
        longest = each.index(max(each))
        bound[longest] += times * each[longest]
        terms = [sum_ + times * ms for sum_, ms in zip(terms, each, strict=True)]
    return [*terms, *bound]


def predict_communication(case: Case, link: Link) -> dict[str, Any]:
    """Time of what each device communicates over a link.

    Returns:
        ``communication_ms`` of the case as it is distributed, and ``official_communication_ms`` of
        the loss's official data-parallel code.
    """
    job = losses.Exchange(case.batch, case.dim, case.world, element_bytes(case.dtype), case.pass_)
    official = losses.spec(case.loss).communicated_bytes(job)
    rounds = 2 if case.pass_ == "step" else 1
    return {
        "communication_ms": _communication_ms(case, link, rounds),
        "official_communication_ms": link.gather_ms(official, case.world, rounds),
    }


def _communication_ms(case: Case, link: Link, rounds: int) -> float:
    if not case.is_share:
        return link.gather_ms(case.communicated_bytes, case.world, rounds)
    return sum(
        link.reduce_ms(moved, case.world)
        if kind == "reduce"
        else link.gather_ms(moved, case.world, 1)
        for kind, moved in exchanges(case)
    )


class Predictor:
    """Predicts cases, each for any number of devices; what cases of a kind do is followed once."""

    def __init__(self) -> None:
        self._growths: dict[str, Growth] = {}
        self._latest: tuple[Case, dict[str, Any]] | None = None

    def predict(self, case: Case, device: Device) -> dict[str, Any]:
        """Fields of a record: the case, and what it should need on a device.

        Returns:
            ``gpu``, the name of the device; ``chosen``, what ``auto`` runs there; the fields of
            ``predict_times``, and ``predicted_peak_bytes``, ``saved_bytes``, ``input_bytes``,
            ``uncounted``, ``fits``, ``predicted_largest_batch``, and those of
            ``predict_communication`` where there is a link; or else ``status`` and ``reason``.
        """
        fields = {**case.describe(), "gpu": device.name}
        if case.implementation == "auto" and not case.is_share:  # what is free there, not here
            case = replace(case, options={"memory_bytes": int(device.memory_bytes)})
        return {**fields, **guarded(self._predict, case, device)}

    def _predict(self, case: Case, device: Device) -> dict[str, Any]:
        growth = self._growth(followed(case))
        done, needed = growth.work(case.loss_batch), self._needed(case, growth)
        peak, link = needed["predicted_peak_bytes"], device.link
        return {
            "status": "ok",
            "reason": "",
            **_known(predict_times(done, device.ceilings), needed["uncounted"]),
            **needed,
            "fits": peak + needed["input_bytes"] <= device.memory_bytes,
            "predicted_largest_batch": growth.largest_batch(device.memory_bytes),
            **(predict_communication(case, link) if link else {}),
        }

    def _needed(self, case: Case, growth: Growth) -> dict[str, Any]:
        """What a case needs on any device; that of the latest case is remembered."""
        if self._latest is None or self._latest[0] != case:
            done = growth.work(case.loss_batch)
            fields = {
                "chosen": case.choice.implementation,
                "predicted_peak_bytes": done.peak_bytes,
                "saved_bytes": done.count(lambda each: each.saved_bytes),
                "input_bytes": input_bytes(case),
                "uncounted": ", ".join(sorted(done.uncounted - {FUSED, GENERATED})),
            }
            self._latest = case, fields
        return self._latest[1]

    def _growth(self, case: Case) -> Growth:
        kind = f"{case.device} {with_batch(case, 2).label}"
        if kind not in self._growths:
            self._growths[kind] = Growth(case)
        return self._growths[kind]
