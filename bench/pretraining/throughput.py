"""What a training step cost: rates, shares, memory, and what a whole schedule would."""

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
from lossbench.bench.measuring.memory import peak_bytes
from lossbench.bench.measuring.phases import PHASES
from lossbench.bench.measuring.timing import summarise
from lossbench.bench.predicting.ceilings import Ceilings
from lossbench.bench.pretraining.config import Config
from lossbench.bench.pretraining.models import Network
from lossbench.bench.pretraining.trainer import MIXED

LOSS_PHASES = ("communication", "loss_forward", "loss_backward")
"""What would not be there without the loss."""
WEIGHT_BYTES = 4
"""Mixed precision keeps weights and their gradients in fp32 too."""
CEILING = {"fp32": "float32", "tf32": "tf32", "bf16": "bfloat16", "fp16": "float16"}


def times(config: Config, world: int, steps: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Rates and shares over steps of the steady state.

    Args:
        config: what was trained.
        world: devices.
        steps: milliseconds of each phase, and ``step`` of the whole, for each step.

    Returns:
        ``median_ms``, ``p20_ms``, ``p80_ms`` and ``samples_ms`` of the steps; ``step_ms`` and the
        phases' ``..._ms``, means that add up; ``images_per_s`` of all devices with a 95% interval;
        ``loss_share`` of the step.
    """
    whole = [step["step"] for step in steps]
    mean = float(np.mean(whole))
    phases = {name: float(np.mean([step[name] for step in steps])) for name in PHASES}
    images = config.batch * config.accumulation * world
    half = _half_width(whole)
    return {
        **summarise(whole),
        "step_ms": mean,
        **{f"{name}_ms": ms for name, ms in phases.items()},
        "images_per_s": images / mean * 1e3,
        "images_per_s_low": images / (mean + half) * 1e3,
        "images_per_s_high": images / max(mean - half, 1e-9) * 1e3,
        "loss_share": sum(phases[name] for name in LOSS_PHASES) / mean,
    }


def _half_width(samples: Sequence[float]) -> float:
    """Half of the 95% interval of a mean (Student's t)."""
    count = len(samples)
    if count < 2:
        return 0.0
    return float(stdtrit(count - 1, 0.975) * np.std(samples, ddof=1) / np.sqrt(count))


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
    """``mfu``: the network's FLOP/s over the calibrated ceiling of all devices."""
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
