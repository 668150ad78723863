"""Contestants take turns, and what is said of them is the median of these with its range."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Seconds of several turns, or ratios of them."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, turns: np.ndarray) -> Spread:
        """Of one number a turn."""
        return cls(float(np.median(turns)), float(np.min(turns)), float(np.max(turns)))


def in_turns(contestants: Mapping[str, Callable[[], float | None]], turns: int) -> dict[str, np.ndarray]:
    """Seconds of every contestant, each once a turn: what it says itself, or the time of the call. A turn before the
    first one compiles."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(turns + 1):
        for name, call in contestants.items():
            began = time.perf_counter()
            own = call()
            took = time.perf_counter() - began if own is None else own
            if turn > 0:
                seconds[name].append(took)
    return {name: np.array(each) for name, each in seconds.items()}
