"""Steps of pretraining jobs, chosen by lists: what is predicted for any number of devices."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lossbench import losses
from lossbench.bench.cases.case import LIMIT, Case
from lossbench.bench.cases.selection import NONE, present_device
from lossbench.bench.pretraining import records
from lossbench.bench.pretraining.config import Config, spread


@dataclass(frozen=True)
class Step:
    """A pretraining step of a job.

    Attributes:
        config: what is trained.
        world: devices, W.
        device: "cpu" or "cuda".
    """

    config: Config
    world: int
    device: str

    @property
    def case(self) -> Case:
        """The loss, as each device computes it."""
        return records.loss_case(self.config, self.device, self.world)

    def describe(self) -> dict[str, Any]:
        """Fields of a record."""
        settings = {f"pretrain_{name}": value for name, value in self.config.describe().items()}
        how = {"pass": records.PASS, "distribution": self.config.distribution}
        return {**self.case.describe(), **how, **settings}


def select_steps(
    preset: str,
    *,
    loss: Sequence[str] = (),
    implementation: Sequence[str] = (),
    batch: Sequence[int] = (),
    world: Sequence[int] = (),
    distribution: Sequence[str] = (),
    settings: Mapping[str, Any] = NONE,
    device: str | None = None,
    there: str = "",
    **others: Any,
) -> list[Step]:
    """Steps of a preset, for each of the values that are listed.

    Args:
        preset: name of published settings.
        loss: default: all that the distribution is known of.
        implementation: default: auto.
        batch: samples per device; default: the preset's.
        world: numbers of devices; default: 1.
        distribution: default: local.
        settings: as ``pretraining.config.spread`` takes them.
        device: "cpu" or "cuda"; default: cuda if there is one.
        there: a device that need not be here, in place of ``device``.
        **others: what chooses cases, but says nothing of steps: must be empty.

    Raises:
        ValueError: a value that no step accepts.
    """
    for name in others:
        if others[name]:
            raise ValueError(
                f"a preset says what a step is: leave --{name.strip('_')} out, or --set it"
            )
    if "distribution" in settings:
        raise ValueError("give --distribution, not --set distribution=...")
    ways, sizes = implementation or ["auto"], [{"batch": number} for number in batch] or [{}]
    configs: list[Config] = []
    for how, size in itertools.product(distribution or ["local"], sizes):
        named = loss or _having(how)
        configs += spread(preset, named, ways, settings, **size, distribution=how)
    worlds = dict.fromkeys(world or [1])
    for number in worlds:
        if not 1 <= number < LIMIT:
            raise ValueError(f"world must be at least 1 and below 2^31, got {number}")
    where = there or present_device(device)
    return [Step(config, number, where) for config in configs for number in worlds]


def _having(distribution: str) -> list[str]:
    """Losses that a distribution is known of."""
    losses.pick("distribution", distribution, losses.DISTRIBUTIONS)
    return [name for name in losses.names() if distribution in losses.distributions(name)]
