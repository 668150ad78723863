"""Multilevel splitting: a rare event as a chain of steps that are not rare, whatever makes it rare.

Of independent paths, those that come to a first level go on, in as many copies as there were paths; copies are moved a
little, over and over, as far as they stay above the level, by a kernel that leaves the law of such paths what it is;
those that come to the next level go on, and so up to the event. The product of the shares is an unbiased estimate of
the event's chance, however few moves are made, if levels and moves are fixed in advance: generalized splitting (Botev
and Kroese 2012), which is subset simulation (Au and Beck 2001) with fixed levels. Levels that are adapted to the very
paths (Cerou and Guyader 2007) bias it: a pilot of other paths finds them. Bad levels or moves cost precision alone.

Paths that are copies of one depend on each other. So they are split into islands, between which nothing is copied, and
the error is seen from how the islands' estimates scatter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import stdtrit

from stress.intervals import TAILS, Estimate
from stress.spec import InputError, RunError

LEAST_HITS, LEAST_ORIGINS = 10, 10
"""Plain paths with the event that an estimate must be worth; and paths at the start, from which those with the event
come, that an island must have in the mean: with fewer, many islands miss what a few find, and estimates scatter less
than they are wrong."""
_NEAREST = 0.15
"""Least of the range of moves, whose other end is 1 [1]."""


class Cloud(Protocol):
    """Some paths, each made of some arrays of random numbers."""

    arrays: int
    """How many."""

    def drawn(self) -> np.ndarray:
        """Draw all anew; their levels: [path]."""
        ...

    def copy(self, parents: np.ndarray) -> None:
        """Have each path be what another one was: [path]."""
        ...

    def near(self, far: np.ndarray) -> np.ndarray:
        """Levels of paths near these, as far as b of `stress_kernels.shocks.nudge` says: [array path]."""
        ...

    def take(self, wanted: np.ndarray) -> None:
        """Have those of the paths near these, that are wanted, take their places: [path]."""
        ...


@dataclass(frozen=True)
class Climbed:
    """What came of some islands."""

    chances: np.ndarray
    """Estimates of the chance to come to each level, [level island]."""
    taken: np.ndarray
    """Share of the moves that stayed above each level but the last, [level island]."""
    origins: np.ndarray
    """Of the paths at the start, how many those with the event come from: [island]."""


@dataclass(frozen=True)
class Split:
    """The chance of an event, and of what comes before it."""

    levels: np.ndarray
    """The last is 1, the event."""
    chances: np.ndarray
    """[level island]."""
    taken: np.ndarray
    """Share of moves that stayed above a level, [level island]; none from the last."""
    origins: int
    """Of the paths at the start, how many those with the event come from."""
    paths: int
    """Simulated in all, those of the pilot among them."""

    @property
    def chance(self) -> Estimate:
        """Of the event."""
        return over_islands(self.chances[-1])

    @property
    def plain(self) -> float:
        """Paths of plain simulation by which the event's chance would be known as well, p (1 - p) / variance."""
        square = self.chances[-1].var(ddof=1) / self.chances.shape[1]
        return float(self.chance.value * (1 - self.chance.value) / square) if square > 0 else np.nan

    @property
    def hits(self) -> float:
        """How many of those would have the event."""
        return self.plain * self.chance.value


def over_islands(estimates: np.ndarray) -> Estimate:
    """Mean of independent estimates, with Student's interval; no chance is below 0."""
    mean, error = float(estimates.mean()), float(estimates.std(ddof=1)) / np.sqrt(len(estimates))
    reach = float(stdtrit(len(estimates) - 1, TAILS[1])) * error
    return Estimate(mean, max(mean - reach, 0.0), mean + reach)


def find_levels(cloud: Cloud, share: float, moves: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """Levels of which each is reached by about `share` of the paths from the one before; the last is 1.

    Args:
        cloud: The pilot's paths.
        share: Aimed at [1].
        moves: Of every path from a level.
        most: Levels after which to give up.
        rng: Decides which paths have one copy more, and how far they are moved.

    Raises:
        InputError: The event is out of reach.
    """
    levels: list[float] = []
    at = cloud.drawn()
    while len(levels) < most:
        best = np.sort(at)
        higher = best[best > (levels[-1] if levels else best[0])]
        if not higher.size:
            raise InputError(
                f"no path of {len(at):,} comes beyond the level {best[-1]:.4g}, expected the event, at 1. Give more "
                "--paths or --moves; if it stays there, the shock as it is may never reach the event."
            )
        levels.append(min(max(float(best[-max(1, round(share * len(at)))]), float(higher[0])), 1.0))
        if levels[-1] >= 1:
            return np.array(levels)
        parents = _copies(np.flatnonzero(at >= levels[-1]), len(at), rng)
        cloud.copy(parents)
        at, _ = _moved(cloud, at[parents], levels[-1], moves, [rng])
    raise InputError(
        f"{most} levels end at {levels[-1]:.4g}, expected the event, at 1, by then. Give a smaller --share, or a less "
        "rare event."
    )


def climb(cloud: Cloud, levels: np.ndarray, moves: int, rngs: Sequence[np.random.Generator]) -> Climbed:
    """Some islands over fixed levels.

    Args:
        cloud: Their paths, of one island after the other.
        levels: Rising.
        moves: Of every path from a level.
        rngs: One an island: decide which paths have one copy more, and how far they are moved.
    """
    islands, at = len(rngs), cloud.drawn()
    size = len(at) // islands
    origin, chance, chances, kept = np.arange(len(at)), np.ones(islands), [], []
    for i, level in enumerate(levels):
        # An island that has died out goes on with what it had, which counts for nothing.
        reached = (at >= level).reshape(islands, size) & (chance > 0)[:, None]
        chance = chance * reached.mean(axis=1)
        chances.append(chance)
        if i + 1 == len(levels):
            break
        parents = np.concatenate([
            k * size + _copies(np.flatnonzero(reached[k]), size, rng) for k, rng in enumerate(rngs)
        ])  # fmt: skip
        cloud.copy(parents)
        origin = origin[parents]
        at, share = _moved(cloud, at[parents], level, moves, rngs)
        kept.append(share)
    origins = [len(np.unique(origin.reshape(islands, size)[k][reached[k]])) for k in range(islands)]
    return Climbed(np.array(chances), np.array(kept).reshape(-1, islands), np.array(origins))


def gathered(levels: np.ndarray, parts: Sequence[Climbed], paths: int) -> Split:
    """All islands together."""
    chances, taken = (np.concatenate([getattr(one, name) for one in parts], axis=1) for name in ("chances", "taken"))
    return Split(levels, chances, taken, sum(int(one.origins.sum()) for one in parts), paths)


def refuse(found: Split, event: str) -> None:
    """`RunError` where an estimate is worth too little to be called one."""
    origins = found.origins / found.chances.shape[1]
    if found.hits >= LEAST_HITS and origins >= LEAST_ORIGINS:
        return
    worth = f"{found.hits:.2g}" if np.isfinite(found.hits) else "no"
    raise RunError(
        f"the chance of {event}, {found.chance.value:.2g}, is worth {worth} plain paths with the event, expected at "
        f"least {LEAST_HITS}, and an island's paths with it come from {origins:.2g} of those at the start, expected at "
        f"least {LEAST_ORIGINS}: it may be far off. Give more --paths, fewer --islands, or more --moves."
    )


def _copies(there: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Parents of so many paths: each of those that are there has equally many copies, or one more by chance."""
    if not there.size:
        return np.arange(size)
    return np.sort(rng.permutation(there)[np.arange(size) % there.size])


def _moved(
    cloud: Cloud, at: np.ndarray, level: float, moves: int, rngs: Sequence[np.random.Generator]
) -> tuple[np.ndarray, np.ndarray]:
    """Levels after some moves that stay above a level: [path]; and the share of the moves that did: [island].

    How far a move goes is drawn log-uniformly, for each path and array: that one law of moves suits all levels.
    """
    taken = np.zeros(len(rngs))
    for _ in range(moves):
        size = cloud.arrays, len(at) // len(rngs)
        far = np.concatenate([_NEAREST ** rng.uniform(size=size) for rng in rngs], axis=1)
        near = cloud.near(far)
        good = near >= level
        cloud.take(good)
        at = np.where(good, near, at)
        taken += good.reshape(len(rngs), -1).mean(axis=1) / moves
    return at, taken
