"""What a pretraining step should take on any number of devices, without running it.

A step is the sum of its parts: the network and the optimizer, followed operation by operation; the
loss, as it is predicted alone; what the loss communicates; and the all-reduce of the gradients, as
far as the backward pass does not hide it. The batch per device stays the same.

``DistributedDataParallel`` adds gradients up in buckets, from the last layers to the first, while
the backward pass goes on. What exceeds the pass is waited for, and at least the last bucket, which
is full only when the pass is over. All devices are linked alike: views are gathered in a ring,
gradients added up in a double binary tree (as NCCL does since 2.4), which moves as many bytes as a
ring in fewer steps.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lossbench.bench.counting.trace import Trace
from lossbench.bench.counting.work import Work
from lossbench.bench.predicting.ceilings import Ceilings
from lossbench.bench.predicting.devices import HERE
from lossbench.bench.predicting.links import Link
from lossbench.bench.predicting.predict import Device, Predictor, predict_times
from lossbench.bench.pretraining.config import Config
from lossbench.bench.pretraining.followed import Followed, follow_network
from lossbench.bench.pretraining.steps import Step
from lossbench.bench.pretraining.throughput import schedule
from lossbench.bench.records import environment
from lossbench.bench.records.failures import guarded

PARTS = ("network", "optimizer", "loss", "communication", "gradient_reduction")
"""Of a step; ``communication`` is the loss's."""
BUCKET_BYTES = 25 * 2**20
"""Gradients that ``DistributedDataParallel`` adds up at once."""


class StepPredictor:
    """Predicts steps, each for any number of devices; a network is followed once."""

    def __init__(self) -> None:
        self._losses = Predictor()
        self._networks: dict[str, Followed] = {}

    def predict(self, step: Step, device: Device) -> dict[str, Any]:
        """Fields of a record: the step, and what it should need on devices of a kind.

        Returns:
            ``gpu``; ``predicted_..._ms`` of ``PARTS`` and of the ``step``, their sum;
            ``predicted_images_per_s`` of all devices; ``predicted_efficiency``: images/s of a
            device to those of one alone; ``predicted_loss_share`` and
            ``predicted_communication_share`` of the step, both with what the loss communicates;
            ``predicted_peak_bytes``, bytes by purpose, ``fits``; and ``schedule_hours`` and
            ``schedule_device_hours``, extrapolated. Or else ``status`` and ``reason``.
        """
        found = guarded(self._predict, step, device)
        return {**step.describe(), "gpu": device.name, "chosen": "", **found}

    def _predict(self, step: Step, device: Device) -> dict[str, Any]:
        network = self._network(step)
        beside = replace(device, memory_bytes=max(1, device.memory_bytes - network.peak_bytes(0)))
        single = replace(step, world=1)
        loss, alone = (self._losses.predict(each.case, beside) for each in (step, single))
        for each in (loss, alone):
            if each["status"] != "ok":
                return {name: each[name] for name in ("status", "reason")}
        parts = _parts(step, device, network, loss)
        first = _parts(single, device, network, alone)
        return {
            "status": "ok",
            "reason": "",
            "chosen": loss["chosen"],
            "network_macs_per_image": network.macs // step.config.batch,
            **_rates(step, parts, sum(first.values())),
            **_memory(step, device, network, loss),
        }

    def _network(self, step: Step) -> Followed:
        network = replace(step.config, loss="smi", implementation="auto", distribution="local")
        kind = f"{step.device} {network.describe()}"
        if kind not in self._networks:
            self._networks[kind] = follow_network(step.config, step.device)
        return self._networks[kind]


def expected(
    config: Config, world: int, device: str, calibration: Mapping[str, Any] | None
) -> dict[str, float]:
    """What a run should take for a step, by what it calibrated: fields of its record.

    Args:
        config: what is trained.
        world: processes of the job.
        device: "cpu" or "cuda".
        calibration: of the run's header.

    Returns:
        ``predicted_..._ms`` of ``PARTS`` and of the step, and ``predicted_peak_bytes``; nothing
        where they are not known.
    """
    ceilings = Ceilings.of(calibration)
    if ceilings is None:
        return {}
    title, memory = environment.hardware(device)
    here = Device(HERE, title, memory, ceilings, "", Link.of(calibration))
    found = StepPredictor().predict(Step(config, world, device), here)
    names = [f"predicted_{part}_ms" for part in (*PARTS, "step")]
    return {name: found[name] for name in (*names, "predicted_peak_bytes") if name in found}


def _parts(
    step: Step, device: Device, network: Followed, loss: Mapping[str, Any]
) -> dict[str, float]:
    """Milliseconds of ``PARTS``."""
    times = step.config.accumulation
    forward, backward, optimizer = (
        _ms(each, device) for each in (network.forward, network.backward, network.optimizer)
    )
    return {
        "network": times * (forward + backward),
        "optimizer": optimizer,
        "loss": times * loss["predicted_ms"],
        "communication": times * loss.get("communication_ms", 0.0),
        "gradient_reduction": _exposed_ms(step, device.link, network, backward),
    }


def _ms(trace: Trace, device: Device) -> float:
    return float(predict_times(Work.of(trace), device.ceilings)["predicted_ms"])


def _exposed_ms(step: Step, link: Link | None, network: Followed, backward_ms: float) -> float:
    """What the backward pass does not hide of the gradients' all-reduce."""
    if step.world == 1:
        return 0.0
    if link is None:
        raise ValueError(f"{step.world} devices need a link between them")
    gradients = network.state["gradient_bytes"]
    moved = 2 * (step.world - 1) / step.world * gradients
    last = min(1.0, BUCKET_BYTES / gradients)
    whole_ms, last_ms = (link.reduce_ms(share * moved, step.world) for share in (1.0, last))
    return max(whole_ms - backward_ms, last_ms)


def _rates(step: Step, parts: dict[str, float], alone_ms: float) -> dict[str, Any]:
    """Times by part, and what follows from them."""
    config, whole = step.config, sum(parts.values())
    images_per_s = config.batch * config.accumulation * step.world / whole * 1e3
    sent = parts["communication"] + parts["gradient_reduction"]
    return {
        **{f"predicted_{name}_ms": ms for name, ms in parts.items()},
        "predicted_step_ms": whole,
        "predicted_images_per_s": images_per_s,
        "predicted_efficiency": alone_ms / whole,
        "predicted_loss_share": (parts["loss"] + parts["communication"]) / whole,
        "predicted_communication_share": sent / whole,
        **schedule(config, step.world, {"images_per_s": images_per_s}),
    }


def _memory(step: Step, device: Device, network: Followed, loss: dict[str, Any]) -> dict[str, Any]:
    """Bytes of one device by purpose, and whether they fit."""
    loss_bytes, several = loss["predicted_peak_bytes"], step.world > 1
    if several and step.config.distribution != "local":
        loss_bytes += loss["input_bytes"]  # the views of all are not the network's output
    gradients = network.state["gradient_bytes"]
    # copies of the gradients in buckets, and those of the batches before
    more = gradients * (several + (step.config.accumulation > 1))
    peak = network.peak_bytes(loss_bytes) + more
    return {
        **network.state,
        "activation_bytes": network.forward.saved_bytes,
        "loss_bytes": loss_bytes,
        "predicted_peak_bytes": peak,
        "fits": peak <= device.memory_bytes,
    }
