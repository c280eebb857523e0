"""How noisy ratios of times are: of each what its own rounds show, moderated by all of the run.

The log ratios of a comparison are those of rounds, several in each of a few sittings (processes in
which all calls were set up anew). Rounds differ within a sitting, and sittings differ beside: where
memory lies, for one. So a comparison has two mean squares, within and between sittings, as a
one-way analysis of variance has them. Of few rounds each is known badly. But the comparisons of a
run are of one machine, so both are drawn towards what the run shows of all of them: as if that were
a sample of its own, of ``freedom`` degrees of freedom (empirical Bayes: Smyth, Stat. Appl. Genet.
Mol. Biol. 3, 2004, the moderated t). How far comparisons differ in noise says how many. A control,
a call beside itself, has a true ratio of 1: its mean too is noise, of the kind that rounds do not
show.

Of five rounds or more a fifth is trimmed at each end (Yuen, Biometrika 61, 1974): a moment in which
the machine was away moves neither the mean nor its error. Docs: ``docs/verdicts.md``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import betaln, fdtridfd

from lossbench.bench.comparing.robust import left_out

USUAL = 0.03
"""Standard deviation of a round's log ratio before anything is known, give or take a factor e."""
USUAL_PLACEMENT = 0.012
"""The same of what rounds do not show, give or take half of that factor. Runs that know it show
0.6% to 1.3%."""
USUAL_FREEDOM = 4.0
"""Degrees of freedom of what a run shows, before its comparisons do, give or take a factor 2."""
STRANGE = 0.99
"""A comparison that is noisier than this share of the run's should be is not quite like them: the
noisier, the less it is drawn towards them."""

Samples = Sequence[Sequence[float]]
"""Milliseconds: one list for each sitting, one entry for each round, from the first on."""
_SCALES = np.geomspace(3e-4, 1.0, 50)
_PLACEMENTS = np.geomspace(5e-4, 0.3, 30)
_FREEDOMS = np.geomspace(1.0, 64.0, 10)
_LEAST = 1e-10
"""Of a variance: a clock's ticks are not nothing."""


@dataclass(frozen=True)
class Pairs:
    """Log ratios of the rounds of two calls, summed up.

    Attributes:
        mean: trimmed.
        rounds: of all sittings.
        each: rounds of a sitting.
        within: mean square within sittings, of one round.
        within_freedom: its degrees of freedom; 0 for a round or none.
        between: mean square between sittings, of one round.
        between_freedom: its degrees of freedom; 0 for one sitting.
    """

    mean: float
    rounds: int
    each: int
    within: float
    within_freedom: float
    between: float
    between_freedom: float

    @classmethod
    def of(cls, contender: Samples, baseline: Samples) -> "Pairs":
        """Of times that were sampled in the same rounds.

        Sittings and rounds that one of the two was not visited in do not count.
        """
        sittings = list(zip(contender, baseline, strict=False))
        each = min(min(len(a), len(b)) for a, b in sittings)
        logs = np.log([np.divide(a[:each], b[:each]) for a, b in sittings])
        count, total = len(logs), logs.size
        cut = left_out(total)
        kept = total - 2 * cut
        ordered = np.sort(logs, axis=None)
        clipped = np.clip(logs, ordered[cut], ordered[total - 1 - cut])
        scale = total * (total - 1) / (kept * (kept - 1)) if kept > 1 else 1.0
        freedom = (kept - 1) / (total - 1) if total > 1 else 0.0
        means = clipped.mean(axis=1)
        inner, outer = total - count, count - 1
        within = ((clipped - means[:, None]) ** 2).sum() / max(1, inner)
        between = each * ((means - means.mean()) ** 2).sum() / max(1, outer)
        return cls(
            mean=float(ordered[cut : total - cut].mean()),
            rounds=total,
            each=each,
            within=float(max(_LEAST, scale * within)),
            within_freedom=inner * freedom,
            between=float(max(_LEAST, scale * between)),
            between_freedom=outer * freedom,
        )


@dataclass(frozen=True)
class Noise:
    """What a run shows of the noise of its log ratios.

    Attributes:
        scale: standard deviation of a round within a sitting.
        freedom: degrees of freedom that this adds to those of a comparison.
        placement: standard deviation that the calls of a comparison add: by where their memory
            lies, and what is visited before them.
        placement_freedom: degrees of freedom that this adds.
    """

    scale: float = USUAL
    freedom: float = USUAL_FREEDOM
    placement: float = USUAL_PLACEMENT
    placement_freedom: float = USUAL_FREEDOM

    def error(self, pairs: Pairs) -> tuple[float, float]:
        """Standard error of the mean of a comparison, and its degrees of freedom (Satterthwaite).

        Neither more rounds nor more sittings make that of ``placement`` less.
        """
        square, freedom = _moderated(
            pairs.within, pairs.within_freedom, self.scale**2, self.freedom
        )
        placement = self.placement**2
        if pairs.between_freedom:
            square, freedom = _moderated(
                pairs.between, pairs.between_freedom, square, self.placement_freedom
            )
        rounds = square / pairs.rounds
        parts = rounds**2 / freedom + placement**2 / self.placement_freedom
        return float(np.sqrt(rounds + placement)), (rounds + placement) ** 2 / parts


def _moderated(
    square: float, freedom: float, usual: float, usual_freedom: float
) -> tuple[float, float]:
    """A mean square drawn towards what is usual; and its degrees of freedom.

    The usual counts for no more degrees of freedom than make the square no more than strange.
    """
    if freedom:
        usual_freedom = min(usual_freedom, fdtridfd(freedom, STRANGE, square / usual))
    together = freedom + usual_freedom
    return (freedom * square + usual_freedom * usual) / together, together


def learn(comparisons: Iterable[Pairs], controls: Iterable[Pairs] = ()) -> Noise:
    """What comparisons show of the noise of them all.

    Args:
        comparisons: of calls that may differ.
        controls: of a call with itself: their means, too, are noise.
    """
    controls = list(controls)
    found = [*comparisons, *controls]
    scale, freedom = _fit(
        np.array([pairs.within for pairs in found]),
        np.array([pairs.within_freedom for pairs in found]),
        np.zeros(len(found)),
        np.ones(len(found)),
        _SCALES,
        _log_normal(_SCALES, USUAL, 1.0),
    )
    within = np.array(
        [_moderated(each.within, each.within_freedom, scale**2, freedom)[0] for each in found]
    )
    means = [max(_LEAST, each.rounds * each.mean**2) for each in controls]
    own = slice(len(found) - len(controls), None)
    placement, placement_freedom = _fit(
        np.array([*(each.between for each in found), *means]),
        np.array([*(each.between_freedom for each in found), *(1.0 for _ in means)]),
        np.concatenate([within, within[own]]),
        np.array([*(each.each for each in found), *(each.rounds for each in controls)], float),
        _PLACEMENTS,
        _log_normal(_PLACEMENTS, USUAL_PLACEMENT, 0.5),
    )
    return Noise(scale, freedom, placement, placement_freedom)


def _fit(
    squares: Any, freedoms: Any, known: Any, weights: Any, scales: Any, prior: Any
) -> tuple[float, float]:
    """Scale and degrees of freedom, by Smyth's model and what is usual.

    ``squares / (known + weights * scale^2)`` are distributed as F(``freedoms``, freedom). Both are
    means over what is likely, of the variance and of 1 / freedom, which errors depend on: the
    likeliest values alone would leave out that they are known badly.
    """
    use = freedoms > 0
    x, f = squares[use], freedoms[use]
    usual = known[use] + weights[use] * scales[:, None, None] ** 2
    d = _FREEDOMS[:, None]
    likelihood = (
        f / 2 * np.log(f / d)
        + (f / 2 - 1) * np.log(x / usual)
        - (f + d) / 2 * np.log1p(f * x / (d * usual))
        - betaln(f / 2, d / 2)
        - np.log(usual)
    ).sum(axis=-1)
    likelihood += prior[:, None] + _log_normal(_FREEDOMS, USUAL_FREEDOM, np.log(2))
    likely = np.exp(likelihood - likelihood.max())
    likely /= likely.sum()
    scale = np.sqrt((likely.sum(axis=1) * scales**2).sum())
    return float(scale), float(1 / (likely.sum(axis=0) / _FREEDOMS).sum())


def _log_normal(values: Any, middle: float, spread: float) -> Any:
    return -0.5 * (np.log(values / middle) / spread) ** 2
