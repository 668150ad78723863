"""Overlays as tables of steps for the kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from stress_kernels.pytree import host
from stress_kernels.world import Conditions

from stress.config import Run
from stress.overlays import Depeg, DepthCollapse, Episode, FundingSpike, Outage, Slowdown, StaleIndex


def conditions(run: Run, *, coins: bool) -> Conditions:
    """What a run's overlays make of each step.

    Args:
        run: The config.
        coins: Whether coins are anybody's money; where not, no peg matters.
    """
    venues, assets, steps = list(run.venues), list(run.assets), run.horizon_hours * 3600 // run.step_seconds

    def table(
        kinds: Any, shape: tuple[int, ...], start: float, put: Callable[[np.ndarray, Any], None], dtype: str = run.dtype
    ) -> Any:
        """A number for each step and place, changed by the overlays of some kinds while they last; none without any."""
        mine = [overlay for overlay in run.overlays if isinstance(overlay, Episode) and isinstance(overlay, kinds)]
        if not mine:
            return None
        values = np.full((steps, *shape), start)
        for overlay in mine:
            during = overlay.during(run.step_seconds, steps)
            now = values[during]
            put(now, overlay)
            values[during] = now
        return host(values, dtype)

    def places(names: tuple[str, ...], all_names: list[str]) -> list[int]:
        return [all_names.index(name) for name in names or all_names]

    def off_peg(now: np.ndarray, overlay: Depeg) -> None:
        now[:, venues.index(overlay.venue), assets.index(overlay.token)] += np.log1p(-overlay.share)

    def thinner(now: np.ndarray, overlay: DepthCollapse) -> None:
        now[:, places(overlay.assets, assets)] *= overlay.times

    def slower(now: np.ndarray, overlay: Slowdown | Outage) -> None:
        now[:, venues.index(overlay.venue)] *= overlay.share if isinstance(overlay, Slowdown) else 0.0

    def dearer(now: np.ndarray, overlay: FundingSpike) -> None:
        now[:, *np.ix_(places(overlay.venues, venues), places(overlay.assets, assets))] += overlay.premium

    def blind(now: np.ndarray, overlay: StaleIndex | Outage) -> None:
        now[:, venues.index(overlay.venue)] = True

    market = len(venues), len(assets)
    return Conditions(
        deviation=table(Depeg, market, 0.0, off_peg) if coins else None,
        thinness=table(DepthCollapse, market[1:], 1.0, thinner),
        working=table((Slowdown, Outage), market[:1], 1.0, slower),
        premium=table(FundingSpike, market, 0.0, dearer),
        stale=table((StaleIndex, Outage), market[:1], 0.0, blind, "bool"),
    )
