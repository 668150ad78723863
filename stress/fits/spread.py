"""How long a jump lasts, from minute prices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from stress.fits import sample
from stress.fits.sample import FEWEST, HOUR, SEED, rounded
from stress.prices import Bars
from stress.spec import InputError

ASSUMED_MINUTES = (1.0, 15.0)  # spread of a jump where no minute prices are given [min]


def jump_minutes(minute: Sequence[Bars], threshold: float) -> Float64[np.ndarray, " jump"]:
    """Length of each large move of an hour [min]: twice the shortest time in which half of it happened.

    Moves: the largest non-overlapping changes over 60 minutes beyond the threshold. For a move that is even in time
    this is its duration; where half comes fast and half slowly it goes with the fast half, which an engine has to take.
    """
    found = []
    for bars in minute:
        if bars.bar_seconds != 60:
            raise InputError(f"{bars.name}: has bars of {bars.bar_seconds} s, expected 60. Give minute prices.")
        logs = np.log(bars.close)
        move = np.where(bars.time[60:] - bars.time[:-60] == HOUR, np.abs(logs[60:] - logs[:-60]), 0.0)
        while move.size and move.max() > threshold:
            i = int(move.argmax())
            path = (logs[i : i + 61] - logs[i]) * np.sign(logs[i + 60] - logs[i])
            most = np.array([0.0, *(np.max(path[w:] - path[:-w]) for w in range(1, 61))])
            w = int(np.argmax(most >= path[-1] / 2))
            found.append(2 * (w - 1 + (path[-1] / 2 - most[w - 1]) / (most[w] - most[w - 1])))
            move[max(0, i - 60) : i + 61] = 0.0
    return np.array(found)


def spread_range(minutes: Float64[np.ndarray, " jump"]) -> Float64[np.ndarray, " end"]:
    """Ends of the uniform with the same mean and sd, within 1 and 60 minutes [min]."""
    half = np.sqrt(3) * np.std(minutes)
    return np.clip([np.mean(minutes) - half, np.mean(minutes) + half], 1.0, 60.0)


def jump_spread(minute: Sequence[Bars], threshold: float) -> dict[str, Any]:
    """Shortest and longest time [min], how they were found, and their standard errors."""
    found = jump_minutes(minute, threshold)
    if len(found) < FEWEST:
        why = f"{len(found)} moves in minute prices" if minute else "no minute prices"
        return {"minutes": ASSUMED_MINUTES, "how": f"assumed ({why})", "error": None}
    rng = np.random.default_rng(SEED)
    draws = [spread_range(rng.choice(found, len(found))) for _ in range(sample.REPLICATES)]
    how = f"measured on {len(found)} moves of an hour in minute prices"
    return {"minutes": rounded(spread_range(found), 2), "how": how, "error": rounded(np.std(draws, axis=0), 2)}
