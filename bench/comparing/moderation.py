"""How noisy ratios of times are: of each what its own rounds show, moderated by all of its group.

The log ratios of a comparison are those of rounds, several in each of a few sittings (processes in
which all calls were set up anew). Rounds differ within a sitting, and sittings differ beside: where
memory lies, for one. So a comparison has two mean squares, within and between sittings, as a
one-way analysis of variance has them. Of few rounds each is known badly. But other comparisons were
made by the same machine, so both are drawn towards what these show: as if that were a sample of its
own, of ``freedom`` degrees of freedom (empirical Bayes: Smyth, Stat. Appl. Genet. Mol. Biol. 3,
2004, the moderated t). How far comparisons differ in noise says how many. A machine is not as quiet
at one time as at another: how noisy rounds are, the group of a comparison shows, whose cases were
timed together, and the other groups of the run beside. How sittings differ the whole run shows. A
control, a call beside itself, has a true ratio of 1: its mean too is noise, of the kind that rounds
do not show.

Of five rounds or more a fifth is trimmed at each end (Yuen, Biometrika 61, 1974): a moment in which
the machine was away moves neither the mean nor its error. Docs: ``docs/verdicts.md``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaln, fdtridfd, stdtrit

from lossbench.bench.comparing.robust import left_out

USUAL = 0.03
"""Standard deviation of a round's log ratio before anything is known, give or take a factor 2."""
APART = np.log(2)
"""Groups differ from one another by a factor 2, give or take: its logarithm."""
USUAL_PLACEMENT = 0.012
"""The same of what rounds do not show, give or take a factor 1.6. Runs that know it show 0.6% to
1.3%."""
USUAL_FREEDOM = 4.0
"""Degrees of freedom that are added, before comparisons show how many, give or take a factor 2."""
STRANGE = 0.99
"""A comparison that is noisier than this share of the group's should be is not quite like them: the
noisier, the less it is drawn towards them. Likewise of a control that differs from itself by
more."""

Group = tuple[list["Pairs"], list["Pairs"]]
"""Comparisons that were timed together, and controls among them."""
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

    def grown(self, growth: float) -> "Pairs":
        """Of so many times as many rounds that are like these: sittings too, if there are any."""
        sittings = self.rounds // self.each
        more = max(0.0, growth * sittings - 1) if self.between_freedom else 0.0
        return replace(
            self,
            rounds=round(growth * self.rounds),
            within_freedom=growth * self.within_freedom,
            between_freedom=self.between_freedom * more / max(1, sittings - 1),
        )


@dataclass(frozen=True)
class Noise:
    """What is known of the noise of a group's log ratios.

    Attributes:
        scale: standard deviation of a round within a sitting.
        freedom: degrees of freedom that this adds to those of a comparison.
        placement: standard deviation that the calls of a comparison add: by where their memory
            lies, and what is visited before them.
        placement_freedom: degrees of freedom that this adds.
        control: standard deviation that is added where a control of the group differs from itself
            by more than all this explains. Further rounds may show that it was chance.
    """

    scale: float = USUAL
    freedom: float = USUAL_FREEDOM
    placement: float = USUAL_PLACEMENT
    placement_freedom: float = USUAL_FREEDOM
    control: float = 0.0

    def error(self, pairs: Pairs) -> tuple[float, float]:
        """Standard error of the mean of a comparison, and its degrees of freedom (Satterthwaite).

        Neither more rounds nor more sittings make those of ``placement`` and ``control`` less.
        """
        square, freedom = _moderated(
            pairs.within, pairs.within_freedom, self.scale**2, self.freedom
        )
        placement = self.placement**2 + self.control**2
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


def learn(groups: Sequence[Group]) -> list[Noise]:
    """What each group of a run shows of the noise of its comparisons.

    How rounds differ is each group's own, drawn towards what the others show. How far calls differ
    by where they lie is the machine's, and learnt from all groups together; but a control that is
    strange even so says that in its group they differ more.
    """
    found = [[*comparisons, *controls] for comparisons, controls in groups]
    rounds = _rounds(found)
    within = [
        [_moderated(each.within, each.within_freedom, scale**2, freedom)[0] for each in pairs]
        for pairs, (scale, freedom) in zip(found, rounds, strict=True)
    ]
    placement = _placement(groups, within)
    known = [Noise(*of_group, *placement) for of_group in rounds]
    return [
        replace(noise, control=_strangeness(controls, noise))
        for (_, controls), noise in zip(groups, known, strict=True)
    ]


def _strangeness(controls: Sequence[Pairs], noise: Noise) -> float:
    """The least ``control`` by which no control differs from itself more than is strange."""
    least = 0.0
    for control in controls:

        def excess(added: float, control: Pairs = control) -> float:
            error, freedom = replace(noise, control=added).error(control)
            return abs(control.mean) - float(stdtrit(freedom, (1 + STRANGE) / 2)) * error

        if excess(least) > 0:
            least = float(brentq(excess, least, abs(control.mean)))
    return least


def _rounds(found: Sequence[Sequence[Pairs]]) -> list[tuple[float, float]]:
    """Scale of rounds, and its degrees of freedom, of each group."""
    shown = [
        _likelihood(
            np.array([each.within for each in pairs]),
            np.array([each.within_freedom for each in pairs]),
            _SCALES[:, None, None] ** 2,
        )
        for pairs in found
    ]
    of_all = sum(shown)
    before = _log_normal(_SCALES, USUAL, np.log(2))
    apart = np.exp(_log_normal(_SCALES[:, None], _SCALES, APART))
    others = (apart @ _likely(of_all - own, before).sum(axis=1) for own in shown)
    return [
        _expected(own, _SCALES, np.log(usual)) for own, usual in zip(shown, others, strict=True)
    ]


def _placement(groups: Sequence[Group], within: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Scale of what rounds do not show, and its degrees of freedom.

    Of the mean squares between sittings, and of the means of controls, beside those within.
    """
    rows: list[tuple[float, ...]] = []
    for (comparisons, controls), inner in zip(groups, within, strict=True):
        rows += (
            (each.between, each.between_freedom, known, each.each)
            for each, known in zip([*comparisons, *controls], inner, strict=True)
        )
        rows += (
            (max(_LEAST, each.rounds * each.mean**2), 1.0, known, each.rounds)
            for each, known in zip(controls, inner[len(comparisons) :], strict=True)
        )
    squares, freedoms, known, weights = np.array(rows, float).reshape(-1, 4).T
    usual = known + weights * _PLACEMENTS[:, None, None] ** 2
    shown = _likelihood(squares, freedoms, usual)
    return _expected(shown, _PLACEMENTS, _log_normal(_PLACEMENTS, USUAL_PLACEMENT, 0.5))


def _likelihood(squares: Any, freedoms: Any, usual: Any) -> Any:
    """Logarithm of how likely mean squares are, by what they usually are and ``_FREEDOMS``.

    By Smyth's model, in which square / usual is distributed as F of the freedom of the square and
    that of the usual.
    """
    use = freedoms > 0
    f = freedoms[use]
    usual = np.broadcast_to(usual, (*usual.shape[:-1], len(squares)))[..., use]
    x = squares[use] / usual
    d = _FREEDOMS[:, None]
    of_each = (
        f / 2 * np.log(f / d)
        + (f / 2 - 1) * np.log(x)
        - (f + d) / 2 * np.log1p(f * x / d)
        - betaln(f / 2, d / 2)
        - np.log(usual)
    )
    return of_each.sum(axis=-1)


def _likely(likelihood: Any, before: Any) -> Any:
    """How likely each scale is with each of ``_FREEDOMS``, by what was before and what is since."""
    known = likelihood + before[:, None] + _log_normal(_FREEDOMS, USUAL_FREEDOM, np.log(2))
    likely = np.exp(known - known.max())
    return likely / likely.sum()


def _expected(likelihood: Any, scales: Any, before: Any) -> tuple[float, float]:
    """Scale and degrees of freedom.

    Both are means over what is likely, of the variance and of 1 / freedom, which errors depend on:
    the likeliest values alone would leave out that they are known badly.
    """
    likely = _likely(likelihood, before)
    scale = np.sqrt((likely.sum(axis=1) * scales**2).sum())
    return float(scale), float(1 / (likely.sum(axis=0) / _FREEDOMS).sum())


def _log_normal(values: Any, middle: Any, spread: float) -> Any:
    return -0.5 * (np.log(values / middle) / spread) ** 2
