"""What is read off a run, as methods of its dataset: `ds.liq.quantile(0.99)`, `ds.liq.plot.fan()`.

`import stress` registers it as soon as there are datasets; without anything else of this package, import this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.lib.stride_tricks import sliding_window_view

from stress import intervals
from stress.intervals import LEVELS, Estimate
from stress.results import by_path, independent, read, sound, weights
from stress.spec import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from stress.fund_size import FundSize
    from stress.risk import Row, Summary
    from stress.tail import Tail

Levels = float | Sequence[float]
_BOUNDS = ("value", "low", "high")
_ADD_UP = ("USD", "accounts")
Figures = Callable[[np.ndarray, Sequence[float], np.ndarray], Sequence[Estimate]]
"""Of values, [path] or [path hour], levels and the weight of each path, a figure at each level."""


@xr.register_dataset_accessor("liq")
class Liq:
    """The figures of a run. Failed paths are left out, weights are used, intervals are 95 %, of independent paths."""

    def __init__(self, ds: xr.Dataset) -> None:
        """Wrap a run, or a cell of a suite."""
        if "path" not in ds.dims or "status" not in ds:
            raise AttributeError("is not a run of liqstress: it has no paths, or no `status`. Open a run's store.")
        self._ds = ds

    @property
    def plot(self) -> Pictures:
        """Pictures."""
        return Pictures(self._ds)

    def summary(self) -> Summary:
        """The figures that a risk committee asks for first."""
        from stress.risk import summary

        return summary(self._ds)

    def table(self) -> list[Row]:
        """The same as lines of text."""
        from stress.risk import summary_table

        return summary_table(self._ds)

    def total(self, variable: str = "liquidation_volume", by: Sequence[str] = (), hours: int = 1) -> xr.DataArray:
        """Sums over all dims but path, hour and `by`, of as many consecutive hours, in 64 bits.

        Args:
            variable: Any variable of the run.
            by: Dims to keep, such as `["venue"]`.
            hours: 24 for volumes of a day; each window is named after its first hour.

        Returns:
            Dims path, hour if the variable has it, and `by`, in the order of the variable.
        """
        ds, array = sound(self._ds), read(self._ds, variable)
        keep = ["hour", *by] if "hour" in array.dims else [*by]
        for dim in by:
            if dim not in array.dims:
                known = ", ".join(map(str, array.dims))
                raise InputError(f"by has {dim!r}, expected dims of {variable} ({known}). Leave it out.")
        order = [str(dim) for dim in array.dims if dim in keep]
        over = [str(dim) for dim in array.dims if dim not in ("path", *order)]
        if over and array.attrs.get("units") not in _ADD_UP:
            raise InputError(f"{variable} does not add up over {over[0]}, expected it in by. Give by={[*by, *over]}.")
        values = by_path(ds, variable, *order)
        if hours != 1:
            if "hour" not in order or not 1 <= hours <= values.shape[1]:
                raise InputError(f"hours is {hours}, expected 1 to the {ds.sizes['hour']} hours of {variable}.")
            values = sliding_window_view(values, hours, axis=1).sum(axis=-1)
        labels: dict[str, Any] = {dim: ds[dim].values for dim in ("path", *order)}
        if "hour" in labels:
            labels["hour"] = labels["hour"][: values.shape[1]]
        return xr.DataArray(values, labels, ("path", *order), variable, array.attrs)

    def quantile(
        self, levels: Levels = LEVELS, variable: str = "liquidation_volume", by: Sequence[str] = (), hours: int = 1
    ) -> xr.DataArray:
        """Quantiles with intervals of `total`, over all its hours unless `by` has `hour`: [quantile bound *by]."""
        return self._figures(_within(levels), variable, by, hours, _quantiles)

    def shortfall(
        self, levels: Levels = 0.99, variable: str = "liquidation_volume", by: Sequence[str] = (), hours: int = 1
    ) -> xr.DataArray:
        """Mean of what lies beyond a quantile, as `quantile`: [quantile bound *by]."""
        return self._figures(_within(levels), variable, by, hours, _shortfalls)

    def chance(
        self, above: float, variable: str = "liquidation_volume", by: Sequence[str] = (), hours: int = 1
    ) -> xr.DataArray:
        """Chance that `total` is above an amount in some hour of a path, or in each hour of `by`: [bound *by]."""

        def hit(values: np.ndarray, levels: Sequence[float], weight: np.ndarray) -> list[Estimate]:
            return [intervals.probability((values.reshape(len(values), -1) > above).any(axis=1), weight)]

        found = self._figures([above], variable, by, hours, hit).isel(quantile=0, drop=True)
        return found.assign_attrs(units="1", long_name=f"chance of {variable} above {above:g}")

    def tail(self, variable: Literal["hour", "day", "drawdown"] = "hour", pool: str | None = None) -> Tail:
        """A generalised-Pareto tail, as `liqstress tail`."""
        from stress.tail import tail

        return tail(self._ds, variable, pool=pool)

    def funds(self) -> dict[str, FundSize]:
        """How large insurance funds would have to be, as `liqstress funds`."""
        from stress.fund_size import fund_sizes

        return fund_sizes(self._ds)

    def explain(self, path: int | str = "worst") -> xr.Dataset:
        """One path of a run that was opened from its store, step by step, as `liqstress explain`."""
        from stress.drilldown import explain

        if "source" not in self._ds.encoding:
            raise InputError("the run is not from a store, which was expected. Open it with `stress.open_run`.")
        return explain(self._ds.encoding["source"], path)

    def _figures(self, levels: Levels, variable: str, by: Sequence[str], hours: int, of: Figures) -> xr.DataArray:
        """A figure at each level, over paths (and hours), for every label of `by`."""
        levels = [float(level) for level in np.atleast_1d(np.asarray(levels, dtype=float))]
        kept = [dim for dim in by if dim != "hour"]
        total, weight = self.total(variable, kept, hours), weights(sound(independent(self._ds)))
        each = [dim for dim in total.dims if dim in by]
        over = [dim for dim in total.dims if dim not in by]
        stacked = total.transpose(*over, *each)
        rows = stacked.values.reshape(*(total.sizes[dim] for dim in over), -1)
        columns = [of(rows[..., i], levels, weight) for i in range(rows.shape[-1])]
        values = np.array([[[getattr(e, bound) for bound in _BOUNDS] for e in column] for column in columns])
        values = np.moveaxis(values, 0, -1).reshape(len(levels), len(_BOUNDS), *(total.sizes[dim] for dim in each))
        labels: dict[Any, Any] = {"quantile": levels, "bound": list(_BOUNDS)}
        labels |= {dim: total[dim].values for dim in each}
        return xr.DataArray(values, labels, ("quantile", "bound", *each), variable, total.attrs)


class Pictures:
    """Pictures of a run. All but `overview` draw on `ax`, if one is given, and return it."""

    def __init__(self, ds: xr.Dataset) -> None:
        """Of a run."""
        self._ds = ds

    def overview(self) -> Figure:
        """The picture that `liqstress run` makes."""
        from stress.plots import overview

        return overview(self._ds)

    def fan(self, ax: Axes | None = None) -> Axes:
        """Quantiles over paths of the volume liquidated in each hour."""
        from stress.plots import hourly_volume

        return hourly_volume(self._ds, ax)

    def exceedance(self, ax: Axes | None = None) -> Axes:
        """Share of all hours above a volume."""
        from stress.plots import exceedance

        return exceedance(self._ds, ax)

    def layers(self, ax: Axes | None = None) -> Axes:
        """What each layer took: the mean of all paths, and of the worst."""
        from stress.plots import absorption

        return absorption(self._ds, ax)

    def funds(self, ax: Axes | None = None) -> Axes:
        """Equity of insurance funds and vaults by hour."""
        from stress.plots import fund_equity

        return fund_equity(self._ds, ax)

    def drawdown(self, ax: Axes | None = None) -> Axes:
        """Chance that a fund falls by more than an amount."""
        from stress.plots_funds import fund_drawdown

        return fund_drawdown(self._ds, ax)

    def payers(self, ax: Axes | None = None) -> Axes:
        """Who pays for auto-deleveraging."""
        from stress.plots import adl_payers

        return adl_payers(self._ds, ax)

    def cascade(self, ax: Axes | None = None, path: int | str = "worst") -> Axes:
        """What is closed on one path, step by step and by layer, with the price, of a run opened from its store."""
        from stress.plots_path import cascade

        return cascade(Liq(self._ds).explain(path), ax)

    def collateral(self, ax: Axes | None = None) -> Axes:
        """Coins of collateral sold."""
        from stress.plots import collateral_sold

        return collateral_sold(self._ds, ax)

    def recovery(self, ax: Axes | None = None) -> Axes:
        """Volatility, open interest and leverage in the days after the last hour."""
        from stress.plots_days import recovery

        return recovery(self._ds, ax)


def _within(levels: Levels) -> Levels:
    """Levels as given; `InputError` for one that is not between 0 and 1, as 99 for 0.99."""
    for level in np.atleast_1d(np.asarray(levels, dtype=float)):
        if not 0 < level < 1:
            raise InputError(f"level is {level:g}, expected a share between 0 and 1. Give 0.99 for 99 %.")
    return levels


def _quantiles(values: np.ndarray, levels: Sequence[float], weight: np.ndarray) -> list[Estimate]:
    return list(intervals.quantile_intervals(values, levels, weight).values())


def _shortfalls(values: np.ndarray, levels: Sequence[float], weight: np.ndarray) -> list[Estimate]:
    return [intervals.shortfall_interval(values, level, weight) for level in levels]
