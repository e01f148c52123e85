"""Which nodes of an area serve its trades across areas: the cross-nodes; all others are normal nodes.

Cross-nodes carry messages between areas and look at both sides of a trade before it is made. They decide nothing, so a
bad choice costs time and never money; still the choice must not be for sale. Two modes:

    ours    score = z(mean credit) - z(spread) + z(upward slope) / 2 + z(availability) + z(relaying), among nodes
            without evidence, available enough and long enough there; then a weighted draw with the beacon's randomness
    paper   total credit and the variance of the users' credit, a steady upward trend preferred (section 4.3; U6):
            T / (1 + V / mean^2) * (1 + 4 g / T); the best scores are the seats, so everybody knows them long before

Seats: f + 1, one of which is honest when at most f nodes lie. Half of them change at a time, and nobody sits longer
than TERMS_MAX terms in a row ("not resident") unless there are too few others. All inputs are on chain and settled two
epochs ago; integers and exact fractions only, so every node computes the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from watt_chain import crypto
from watt_chain.genesis import faults_tolerated

PPM: Final = 1_000_000
HISTORY: Final = 8
"""Epochs that the trend looks at: a week of daily events, and one."""
TERMS_MAX: Final = 2
"""Terms in a row on one seat."""
AVAILABLE_PPM: Final = 950_000
"""A node that missed one block in twenty is no relay to rely on."""
TENURE_MIN: Final = 2
"""Epochs a node must have been there: its figures of two epochs ago have to exist."""
Z_MAX: Final = 3 * PPM
"""No single figure counts for more than three spreads."""
TREND_WEIGHT: Final = 4
"""mu of U6."""

Mode = Literal["ours", "paper"]


@dataclass(frozen=True, slots=True)
class Standing:
    """What the chain knows of a node and the users it serves."""

    index: int
    credits: tuple[int, ...]
    "Credit of each user it serves, in any order."
    totals: tuple[int, ...]
    "Total credit of its users at the end of the last epochs, oldest first; at most HISTORY count."
    available_ppm: int = PPM
    relayed_ppm: int = PPM
    "Receipts it relayed in time, of those that were due."
    convicted: bool = False
    tenure: int = TENURE_MIN
    "Epochs in its seat."
    terms: int = 0
    "Terms in a row it has been a cross-node until now."


def seats(n: int) -> int:
    """How many cross-nodes an area of n nodes has: f + 1."""
    return faults_tolerated(n) + 1


def choose(standings: Sequence[Standing], seed: bytes, mode: Mode = "ours") -> tuple[int, ...]:
    """Indices of the next cross-nodes, ascending. `standings` names every node of the area once.

    `seed` is the beacon's randomness of the epoch (32 bytes); `paper` mode does not use it. Those who sit for less than
    TERMS_MAX terms keep their seat, at most half of the seats, the best first; the others are filled anew.
    """
    wanted = seats(len(standings))
    free = [one for one in standings if one.terms < TERMS_MAX] or list(standings)
    if mode == "paper":
        best = sorted(_steady(free), key=lambda one: (-paper_score(one), one.index))
        return _filled([one.index for one in best[:wanted]], standings, wanted)
    scores = our_scores(standings)
    able = [one for one in free if _able(one)]
    ranked = sorted(able, key=lambda one: (-scores[one.index], one.index))
    kept = [one.index for one in ranked if one.terms > 0][: wanted // 2]
    pool = [one for one in ranked if one.index not in kept][: max(2 * wanted, len(standings) // 2)]
    drawn = _draw(seed, [one.index for one in pool], [_weight(scores[one.index]) for one in pool], wanted - len(kept))
    return _filled([*kept, *drawn], standings, wanted)


def _filled(chosen: list[int], standings: Sequence[Standing], wanted: int) -> tuple[int, ...]:
    """Too few were able: others take the seats left, the least objectionable first; an empty seat helps nobody."""
    for one in sorted(standings, key=lambda one: (one.terms >= TERMS_MAX, one.convicted, one.index)):
        if len(chosen) < wanted and one.index not in chosen:
            chosen.append(one.index)
    return tuple(sorted(chosen))


def _able(one: Standing) -> bool:
    return not one.convicted and one.available_ppm >= AVAILABLE_PPM and one.tenure >= TENURE_MIN


# The paper's score (U6) ------------------------------------------------------------------------------------------


def paper_score(one: Standing) -> Fraction:
    """Total credit, less for a wide spread among the users, more for a rising total; 0 without users."""
    total = sum(one.credits)
    if total <= 0:
        return Fraction(0)
    count = len(one.credits)
    mean = Fraction(total, count)
    variance = Fraction(sum(((credit - mean) ** 2 for credit in one.credits), Fraction(0)), count)
    growth = Fraction(TREND_WEIGHT * slope(one.totals), total)
    return Fraction(total, 1 + Fraction(variance, mean**2)) * (1 + growth)


def _steady(standings: Sequence[Standing]) -> list[Standing]:
    """Nodes with an upward trend whose totals scatter little about it; without any, all."""
    rising = [one for one in standings if slope(one.totals) >= 0 and not one.convicted]
    scatter = sorted(residual(one.totals) for one in rising)
    steady = [one for one in rising if residual(one.totals) <= scatter[(len(scatter) - 1) // 2]]
    return steady or list(standings)


def slope(totals: Sequence[int]) -> Fraction:
    """Least-squares slope of the last HISTORY totals, per epoch; 0 for fewer than two."""
    last = totals[-HISTORY:]
    count = len(last)
    if count < 2:
        return Fraction(0)
    middle = Fraction(count - 1, 2)
    above = sum(((at - middle) * total for at, total in enumerate(last)), Fraction(0))
    return Fraction(above, sum(((at - middle) ** 2 for at in range(count)), Fraction(0)))


def residual(totals: Sequence[int]) -> Fraction:
    """Mean squared distance of the totals from their line."""
    last = totals[-HISTORY:]
    if not last:
        return Fraction(0)
    rise, middle = slope(last), Fraction(len(last) - 1, 2)
    mean = Fraction(sum(last), len(last))
    squares = ((total - mean - rise * (at - middle)) ** 2 for at, total in enumerate(last))
    return Fraction(sum(squares, Fraction(0)), len(last))


# Our score -------------------------------------------------------------------------------------------------------


def our_scores(standings: Sequence[Standing]) -> dict[int, int]:
    """Score of each node by index, ppm of one spread; the mean and not the total, or size alone would win."""
    columns = (
        (2, [_mean_ppm(one.credits) for one in standings]),
        (-2, [_spread_ppm(one.credits) for one in standings]),
        (1, [max(0, _theil_sen_ppm(one.totals)) for one in standings]),
        (2, [one.available_ppm for one in standings]),
        (2, [one.relayed_ppm for one in standings]),
    )
    scores = {one.index: 0 for one in standings}
    for weight, values in columns:
        for one, z_ppm in zip(standings, _z_ppm(values), strict=True):
            scores[one.index] += weight * z_ppm
    return {index: score // 2 for index, score in scores.items()}


def _mean_ppm(credits: Sequence[int]) -> int:
    """Mean credit; a node with few users is drawn towards nothing (a mean of one is no reputation)."""
    return PPM * sum(credits) // (len(credits) + 1) if credits else 0


def _spread_ppm(credits: Sequence[int]) -> int:
    """Median distance from the median."""
    middle = _median([PPM * credit for credit in credits])
    return _median([abs(PPM * credit - middle) for credit in credits])


def _theil_sen_ppm(totals: Sequence[int]) -> int:
    """Median of the slopes between all pairs of the last totals: one odd epoch does not move it."""
    last = totals[-HISTORY:]
    slopes = [PPM * (last[late] - last[early]) // (late - early) for late in range(len(last)) for early in range(late)]
    return _median(slopes)


def _median(values: Sequence[int]) -> int:
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2] if ordered else 0


def _z_ppm(values: Sequence[int]) -> list[int]:
    """Distance from the median in median distances, at most Z_MAX; all 0 when the nodes hardly differ."""
    middle = _median(values)
    spread = _median([abs(value - middle) for value in values])
    if spread == 0:
        spread = max(abs(value - middle) for value in values)
    if spread == 0:
        return [0] * len(values)
    return [max(-Z_MAX, min(Z_MAX, PPM * (value - middle) // spread)) for value in values]


def _weight(score_ppm: int) -> int:
    """Weight in the draw: from 1 to 3, so that the best is more likely and never certain."""
    return PPM + (max(-Z_MAX, min(Z_MAX, score_ppm)) + Z_MAX) // 3


def _draw(seed: bytes, indices: Sequence[int], weights: Sequence[int], count: int) -> list[int]:
    """`count` different indices, drawn without replacement in proportion to the weights."""
    left = list(zip(indices, weights, strict=True))
    drawn: list[int] = []
    while left and len(drawn) < count:
        whole = sum(weight for _, weight in left)
        digest = crypto.sha256(b"wattpact/1/cross-seats\x00" + seed + len(drawn).to_bytes(4, "big"))
        at = int.from_bytes(digest, "big") % whole
        for position, (index, weight) in enumerate(left):
            if at < weight:
                drawn.append(index)
                del left[position]
                break
            at -= weight
    return drawn
