"""How things go back after a run's last hour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from stress import intervals
from stress.days import courses, has_days
from stress.drawing import BLACK, PALETTE, axes_of, legend
from stress.results import sound, weights
from stress.spec import InputError
from stress.variables import ALWAYS

if TYPE_CHECKING:
    import xarray as xr

DRAWN = ("recovery_volatility", "recovery_open_interest", "recovery_mean_leverage")
"""Variables that the picture needs."""


def recovery(ds: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Fan chart of the days after the last hour: volatility, open interest and leverage over what they begin with.

    Medians over paths, and 5 to 95 %.
    """
    if not has_days(ds):
        raise InputError("the run ends with its last hour, days after it were expected. Add [behaviour.recovery].")
    ds = sound(ds)
    ax, weight = axes_of(ax, "After the last hour"), weights(ds)
    days = ds["day"].values
    for colour, course in zip(PALETTE, courses(ds[[*DRAWN, *ALWAYS]]), strict=False):
        share = 100 * course.values / course.values[:, :1]
        fan = np.array([intervals.quantile(day, [0.05, 0.5, 0.95], weight) for day in share.T])
        ax.fill_between(days, fan[:, 0], fan[:, 2], color=colour, alpha=0.2, lw=0)
        ax.plot(days, fan[:, 1], "o-", color=colour, lw=2, ms=4, label=course.name)
    ax.axhline(100, color=BLACK, lw=0.8)
    ax.set(xlim=(0, days[-1]), ylim=(0, None), xlabel="days since the last hour [day]")
    ax.set_ylabel("of what the last hour leaves [%]")
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    legend(ax, ncols=3)
    return ax
