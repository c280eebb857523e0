"""Steps of pretraining jobs, chosen by lists: what is predicted for any number of devices."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import losses
from bench.case import LIMIT, Case
from bench.console import parse_list
from bench.options import parse_numbers
from bench.pretraining import records
from bench.pretraining.config import Config, spread


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
    device: str,
    *,
    loss: str | None = None,
    implementation: str | None = None,
    batch: str | None = None,
    world: str | None = None,
    distribution: str | None = None,
    set_: Sequence[str] = (),
) -> list[Step]:
    """Steps of a preset, for each of the values that comma-separated lists name.

    Args:
        preset: settings.
        device: "cpu" or "cuda".
        loss: default: all that the distribution is known of.
        implementation: default: auto.
        batch: samples per device; default: the preset's.
        world: numbers of devices; default: 1.
        distribution: default: local.
        set_: settings as NAME=VALUE.

    Raises:
        ValueError: a value that no step accepts.
    """
    ways = parse_list("--implementation", implementation or "auto")
    batches = [{"batch": number} for number in parse_numbers("--batch", batch)] or [{}]
    if any(text.startswith("distribution=") for text in set_):
        raise ValueError("give --distribution, not --set distribution=...")
    spreads = parse_list("--distribution", distribution or "local")
    configs: list[Config] = []
    for how, size in itertools.product(spreads, batches):
        named = parse_list("--loss", loss) if loss else _having(how)
        configs += spread(preset, named, ways, set_, **size, distribution=how)
    worlds = dict.fromkeys(parse_numbers("--world", world) or [1])
    for number in worlds:
        if not 1 <= number < LIMIT:
            raise ValueError(f"world must be at least 1 and below 2^31, got {number}")
    return [Step(config, number, device) for config in configs for number in worlds]


def _having(distribution: str) -> list[str]:
    """Losses that a distribution is known of."""
    losses.pick("distribution", distribution, losses.DISTRIBUTIONS)
    return [name for name in losses.names() if distribution in losses.distributions(name)]
