"""What a training step cost: rates, shares, memory, and what a whole schedule would."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from lossbench import losses
from lossbench.bench.cases.calls import make_call
from lossbench.bench.comparing.robust import Estimate, left_out, trimmed_mean
from lossbench.bench.measuring.memory import peak_bytes
from lossbench.bench.measuring.phases import PHASES
from lossbench.bench.measuring.timing import summarise
from lossbench.bench.predicting.ceilings import Ceilings
from lossbench.bench.pretraining.config import Config
from lossbench.bench.pretraining.models import Network
from lossbench.bench.pretraining.trainer import MIXED

LOSS_PHASES = ("communication", "loss_forward", "loss_backward")
"""What would not be there without the loss."""
FEWEST = 6
"""Steps that an interval needs: the fewest of which one at each end is left out and four stay."""
WEIGHT_BYTES = 4
"""Mixed precision keeps weights and their gradients in fp32 too."""
CEILING = {"fp32": "float32", "tf32": "tf32", "bf16": "bfloat16", "fp16": "float16"}


def times(config: Config, world: int, steps: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Rates and shares over steps of the steady state, whatever a few of them were held up by.

    A step's time is the 20% trimmed geometric mean: that of the steps without the fifth that took
    longest and the fifth that took least. Its 95% interval is Yuen's, of the logarithms, so that
    both its ends are times. A phase has the share of the step that it has of the time of the steps
    that were kept.

    Args:
        config: what was trained.
        world: devices.
        steps: milliseconds of each phase, and ``step`` of the whole, for each step.

    Returns:
        ``median_ms``, ``p20_ms``, ``p80_ms`` and ``samples_ms`` of the steps; ``step_ms`` and the
        phases' ``..._ms``, which add up; ``images_per_s`` of all devices with a 95% interval, None
        of fewer than ``FEWEST`` steps; ``loss_share`` of the step.
    """
    whole = [step["step"] for step in steps]
    found = trimmed_mean(np.log(whole).tolist())
    images = config.batch * config.accumulation * world
    rate = images / math.exp(found.mean) * 1e3
    width = _widening(found) if len(whole) >= FEWEST else None
    shares = _shares(steps)
    return {
        **summarise(whole),
        "step_ms": math.exp(found.mean),
        **{f"{name}_ms": share * math.exp(found.mean) for name, share in shares.items()},
        "images_per_s": rate,
        "images_per_s_low": width and rate / width,
        "images_per_s_high": width and rate * width,
        "loss_share": sum(shares[name] for name in LOSS_PHASES),
    }


def _widening(found: Estimate) -> float:
    """Factor from a geometric mean to the ends of its 95% interval (Student's t)."""
    return math.exp(stdtrit(found.freedom, 0.975) * math.sqrt(found.variance))


def _shares(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of the phases, of the time of the steps that are kept."""
    cut = left_out(len(steps))
    kept = sorted(steps, key=lambda step: step["step"])[cut : len(steps) - cut]
    total = sum(step["step"] for step in kept)
    return {name: sum(step[name] for step in kept) / total for name in PHASES}


def schedule(config: Config, world: int, found: Mapping[str, Any]) -> dict[str, Any]:
    """What the whole schedule would take at this rate: an extrapolation, nothing measured.

    Returns:
        ``schedule_hours``, ``schedule_device_hours`` and, where joules are known, ``schedule_kwh``.
    """
    images = config.schedule_images * config.epochs
    if not images:
        return {}
    hours = images / found["images_per_s"] / 3600
    joules = found.get("joules_per_image")
    return {
        "schedule_hours": hours,
        "schedule_device_hours": hours * world,
        **({} if joules is None else {"schedule_kwh": images * joules / 3.6e6}),
    }


def network_macs(config: Config) -> int:
    """Multiply-adds of the network for one image: both views, forward and backward.

    Counted by FlopCounterMode on tensors without values.
    """
    with torch.device("meta"):
        network = Network(config)
        views = torch.empty(2, 3, config.image_size, config.image_size)
        with FlopCounterMode(display=False) as counter:
            network(views).sum().backward()
    return int(counter.get_total_flops()) // 2


def gradient_bytes(config: Config, world: int) -> int:
    """Bytes each device moves to add up the gradients of all weights, of fp32 (ring algorithm)."""
    with torch.device("meta"):
        weights = sum(each.numel() for each in Network(config).parameters())
    return losses.all_reduce_bytes(
        losses.Exchange(config.batch, config.dim, world, WEIGHT_BYTES, "step"), weights
    )


def utilisation(
    config: Config, found: Mapping[str, Any], world: int, ceilings: Ceilings | None
) -> dict[str, Any]:
    """What the network needs, and how well it uses the devices.

    Returns:
        ``network_macs_per_image``; ``mfu``: the network's FLOP/s over the ceiling of all devices,
        if that is known, and above 1 if it beats it.
    """
    macs = network_macs(config)
    fields: dict[str, Any] = {"network_macs_per_image": macs}
    rate = ceilings.gemm_gflops.get(CEILING[config.precision]) if ceilings else None
    if rate:
        fields["mfu"] = 2 * macs * found["images_per_s"] / 1e9 / (rate * world)
    return fields


class SavedBytes:
    """Bytes that a module's forward pass keeps for its backward pass, beyond its weights.

    Use it in ``with``; ``bytes`` then says of the calls that were made inside.

    Args:
        module: whose calls are looked at.
    """

    def __init__(self, module: nn.Module) -> None:
        known = (*module.parameters(), *module.buffers())
        self._seen = {each.untyped_storage().data_ptr() for each in known}
        self.bytes = 0
        self._hooks = saved_tensors_hooks(self._save, lambda tensor: tensor)
        self._handles = [
            module.register_forward_pre_hook(lambda *_: self._hooks.__enter__()),
            module.register_forward_hook(lambda *_: self._hooks.__exit__()),
        ]

    def _save(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor

    def __enter__(self) -> "SavedBytes":
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


def loss_bytes(loss: nn.Module, config: Config, device: str) -> int:
    """Peak bytes of the loss's own forward and backward pass, beyond the embeddings."""
    dtype = MIXED.get(config.precision, torch.float32)
    z_a, z_b = (torch.randn(config.batch, config.dim, dtype=dtype, device=device) for _ in "ab")
    return peak_bytes(make_call(loss, (z_a, z_b), "step"), device)


def state_bytes(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Bytes of weights, of as many gradients, and of what the optimizer keeps."""
    weights = sum(each.numel() * each.element_size() for each in network.parameters())
    kept = sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    )
    return {"parameter_bytes": weights, "gradient_bytes": weights, "optimizer_bytes": kept}
