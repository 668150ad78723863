"""What the fits of all jump-diffusions have in common: from hourly and minute bars to a shock and its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from stress.diffusions import Diffusion
from stress.fits.sample import check, check_notes, hourly_returns, tail, tail_notes
from stress.fits.spread import jump_spread
from stress.prices import Bars
from stress.spec import validate

Fit = Callable[[Float64[np.ndarray, "hour asset"]], tuple[Any, dict[str, np.ndarray]]]
"""Estimate (with `threshold`, `numbers` and `beyond`) and standard errors of hourly returns."""
Table = Callable[[Sequence[str], Mapping[str, np.ndarray], Any], dict[str, Any]]
"""Numbers, or their standard errors, of assets in the shape of the spec."""


def fit_jumps[S: Diffusion](
    spec: type[S],
    kind: str,
    fit: Fit,
    table: Table,
    found: Callable[[Any, int], str],
    hourly: Mapping[str, Bars],
    minute: Sequence[Bars],
    level: float | None,
) -> tuple[S, dict[str, Any]]:
    """A jump-diffusion and its report.

    Args:
        spec: Of the shock.
        kind: Its name in a config.
        fit: How it is estimated.
        table: Turns numbers into a table of the spec.
        found: Says how many jumps an estimate found in so many hours.
        hourly: Hourly bars by asset; the first asset is the leader, whose jumps are the common ones.
        minute: Minute bars of the leader, for the spread of a jump.
        level: Total daily volatility of the leader to which all returns are scaled first; None leaves them [1].
    """
    assets = list(hourly)
    returns, period, scale = hourly_returns(hourly, level)
    estimate, errors = fit(returns)
    minutes = jump_spread(minute, estimate.threshold / scale)
    numbers, deviations = (table(assets, values, estimate) for values in (estimate.numbers(), errors))
    for filled, name in ((numbers, "minutes"), (deviations, "error")):
        if minutes[name] is not None:
            filled["common"]["minutes"] = list(minutes[name])
    shock = validate(spec, {"kind": kind, **numbers}, "fit")
    checked = check(assets, returns, shock, errors["total"])
    seen = tail(returns[:, 0], estimate.threshold, estimate.beyond)
    spread = f"Minutes of a jump: {minutes['how']}."
    return shock, {
        "period": period,
        "hours": len(returns),
        "scale": scale,
        "standard_errors": deviations,
        "check": checked,
        "tail": seen,
        "spread": minutes["how"],
        "notes": [found(estimate, len(returns)), spread, *check_notes(checked), *tail_notes(seen)],
    }
