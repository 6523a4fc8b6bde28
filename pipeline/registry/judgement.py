"""The verdict on two models by the images on which they disagree, at the level that a look has: arithmetic alone.

The k-th look at the same images has the level 0.05 / (k (k + 1)), and these add up to 0.05 however many there are: of
candidates that are no better, and were made without these images, one or more is promoted with a probability of at most
5 %. (Blum and Hardt, "The Ladder", arXiv 1502.04585, say why looks at one set have to be counted.)
"""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom

ALPHA = 0.05
SPENT = 0.01  # the part of a look's level that the bounds on the share of disagreements take, where there is a margin
GRID, NEGLIGIBLE = 101, 1e-12


def level_of(look: int) -> float:
    """The level of the k-th look, from 1: 0.025, 0.0083, 0.0042, ..."""
    return ALPHA / (look * (look + 1))


def claim_of(margin: float) -> str:
    """What has to be shown of the candidate; the margin in percentage points."""
    return f"at most {margin:g} points worse" if margin else "better"


def p_value(candidate: int, champion: int) -> float:
    """McNemar's exact test, one-sided.

    The null hypothesis: the candidate is right on no larger share of all images, so that each disagreement is its with
    probability 1/2 at most.

    Args:
        candidate, champion: images that only this one got right.
    """
    return float(binom.sf(candidate - 1, candidate + champion, 0.5))


def p_value_with_margin(candidate: int, champion: int, images: int, margin: float, level: float) -> float:
    """An exact test that the candidate is not worse by a margin (Sidik, Statistics in Medicine 22, 2003).

    The null hypothesis: the candidate is right on a share of the images that is smaller by the margin m or more. With
    n disagreements, c of them the candidate's, T = (c - (n - c) + N m) / sqrt(n) says how far the difference lies above
    -m. p is the probability of a T as large where the difference is -m: n is binomial (N, d), and c, of n, binomial
    with probability (d - m) / 2d. It is the largest over the d, the share of disagreements, of a confidence interval
    (Clopper and Pearson) whose error probability is added (Berger and Boos, JASA 89, 1994).

    Args:
        candidate, champion: images that only this one got right.
        images: all of them, N.
        margin: m, a share of the images above 0.
        level: of the look; a hundredth is the interval's error probability.
    """
    disagreements, spent = candidate + champion, SPENT * level
    low = float(beta.ppf(spent / 2, disagreements, images - disagreements + 1)) if disagreements else 0.0
    high = float(beta.isf(spent / 2, disagreements + 1, images - disagreements)) if disagreements < images else 1.0
    if high <= margin:  # they disagree too rarely for a difference of the margin
        return spent
    shares = np.linspace(max(low, margin), high, GRID)[:, None]
    least = int(binom.ppf(NEGLIGIBLE, images, shares[0, 0]))
    counts = np.arange(least, int(binom.isf(NEGLIGIBLE, images, high)) + 1)  # n
    observed = (candidate - champion + images * margin) / np.sqrt(disagreements) if disagreements else np.inf
    with np.errstate(invalid="ignore"):  # infinity times no disagreements, which are as far above as can be
        enough = np.nan_to_num(np.ceil((counts - images * margin + observed * np.sqrt(counts)) / 2 - 1e-9))
    tails = binom.sf(enough - 1, counts, (shares - margin) / (2 * shares))
    return min(1.0, float((binom.pmf(counts, images, shares) * tails).sum(axis=1).max()) + spent)


@dataclass(frozen=True)
class Verdict:
    """What the same images say of two models.

    Attributes:
        images: how many.
        champion, candidate: images that each got right.
        only_champion, only_candidate: images that only this one got right.
        look: which look at these images it is, from 1.
        margin: by how many percentage points the candidate may be worse; 0: it has to be better.
    """

    images: int
    champion: int
    candidate: int
    only_champion: int
    only_candidate: int
    look: int = 1
    margin: float = 0.0

    @property
    def level(self) -> float:
        """What p has to be below."""
        return level_of(self.look)

    @property
    def p(self) -> float:
        """One-sided, of the test that the margin asks for."""
        return self._p_value(self.only_candidate)

    @property
    def promotes(self) -> bool:
        """Whether better, or with a margin not worse by more than that, is shown at the look's level."""
        return self.p < self.level

    @property
    def words(self) -> str:
        """The verdict in a line."""
        claim = claim_of(self.margin)
        found = f"needs p < {self.level:.3g} (look {self.look}), has {self.p:.3g}"
        found += f": {self.only_candidate} to {self.only_champion}"
        if self.promotes:
            return f"promote: shown to be {claim}; {found}"
        return f"refuse: not shown to be {claim}; {found}; {self._wanted}"

    @property
    def _wanted(self) -> str:
        """What would have been enough."""
        disagreements = self.only_champion + self.only_candidate
        # the larger the candidate's part, the smaller p
        enough = bisect_left(range(disagreements + 1), True, key=lambda part: self._p_value(part) < self.level)
        if enough > disagreements:
            return f"no split of {disagreements} would have been enough"
        return f"it would have taken {enough} to {disagreements - enough}"

    def _p_value(self, part: int) -> float:
        """As if so many of the disagreements were the candidate's."""
        rest = self.only_champion + self.only_candidate - part
        if not self.margin:
            return p_value(part, rest)
        return p_value_with_margin(part, rest, self.images, self.margin / 100, self.level)


def judge(
    labels: NDArray[np.integer],
    champion: NDArray[np.integer],
    candidate: NDArray[np.integer],
    look: int = 1,
    margin: float = 0.0,
) -> Verdict:
    """Compare two models' predictions (N,) of the same images; look and margin as in `Verdict`."""
    right, other = champion == labels, candidate == labels
    alone, other_alone = int((right & ~other).sum()), int((other & ~right).sum())
    return Verdict(len(labels), int(right.sum()), int(other.sum()), alone, other_alone, look, margin)
