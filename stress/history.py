"""Recorded hours as tables, for shocks that draw from price files; and the volatility that a GARCH sees in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from stress.prices import ending, instant, load_replay
from stress.recorded import Garch, Replay, Window
from stress.spec import InputError

_HOUR, _DAY = 3600, 24


def recorded_log_prices(
    shock: Replay | Window,
    folder: Path,
    files: Mapping[str, str],
    assets: Sequence[str],
    horizon_hours: int,
    step_seconds: int,
) -> dict[str, np.ndarray]:
    """Log prices [ln USD] at the start and after each step, by asset: of the horizon for a replay, else of all hours.

    Raises:
        InputError: A file or the window does not fit; a window that is shorter than the run is refused too.
    """
    if isinstance(shock, Replay):
        seconds, field = horizon_hours * _HOUR, "horizon_hours"
    else:
        seconds, field = ending(shock.until) - instant(shock.start), "shock.until"
        if seconds % _HOUR or seconds < horizon_hours * _HOUR:
            raise InputError(
                f"shock.until is '{shock.until}', {seconds / _HOUR:g} h after shock.start, expected whole hours and no "
                f"fewer than the {horizon_hours} h of the run. Choose a later time, or shorten horizon_hours."
            )
    longest = None if isinstance(shock, Replay) else _HOUR
    return load_replay(folder, files, assets, shock.start, seconds, step_seconds, shock.inside_bars, field, longest)


def hours_of(log: Float64[np.ndarray, "time asset"], each: int) -> Float64[np.ndarray, "hour {each} asset"]:
    """Log index at each step's end within an hour, against the hour's opening [1].

    Args:
        log: Log prices at the start and after each step of whole hours.
        each: Steps in an hour.
    """
    opening = log[:-1:each]
    return log[1:].reshape(len(opening), each, -1) - opening[:, None]


def conditional_variance(
    returns: Float64[np.ndarray, " hour"], long_run: float, alpha: float, gamma: float, beta: float
) -> Float64[np.ndarray, " {len(returns)+1}"]:
    """Variance of each hour given those before, and of the hour after the last: a GJR-GARCH(1, 1).

        h' = omega + (alpha + gamma 1[r < 0]) r^2 + beta h        omega = long_run (1 - alpha - gamma / 2 - beta)

    Args:
        returns: Log-returns of hours [1].
        long_run: Variance of an hour in the long run, and of the first one [1].
        alpha: Weight of a squared return.
        gamma: What a negative one weighs more.
        beta: Weight of the last variance.
    """
    from scipy.signal import lfilter  # Slow to import, and seldom needed.

    pushed = long_run * (1 - alpha - gamma / 2 - beta) + (alpha + gamma * (returns < 0)) * returns**2
    later, _ = lfilter([1.0], [1.0, -beta], pushed, zi=[beta * long_run])
    return np.concatenate([[long_run], later])


def garch_tables(
    shock: Garch, hours: Float64[np.ndarray, "hour step asset"], assets: Sequence[str]
) -> tuple[Float64[np.ndarray, "hour step asset"], Float64[np.ndarray, "state asset"]]:
    """Recorded hours over their own volatility, and the variances of an hour from which paths start.

    Residuals are rescaled to a mean square of 1, so that `daily_volatility` is what paths have in the long run. Their
    mean is left as recorded.
    """
    returns = hours[:, -1]
    variance = np.stack(
        [
            conditional_variance(
                returns[:, a],
                shock.daily_volatility[asset] ** 2 / _DAY,
                shock.alpha[asset],
                shock.gamma[asset],
                shock.beta[asset],
            )
            for a, asset in enumerate(assets)
        ],
        axis=1,
    )
    residuals = hours / np.sqrt(variance[:-1, None])
    residuals /= np.sqrt(np.mean(residuals[:, -1] ** 2, axis=0))
    return residuals, variance[-1:] if shock.begin == "last_hour" else variance[:-1]
