"""One path as columns over time: prices of one market, and sums over it, over a venue, an asset, or all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stress.results import keeps
from stress.spec import InputError

if TYPE_CHECKING:
    import xarray as xr

Timeline = dict[str, np.ndarray]
"""Columns by name, one row a step; amounts in USD."""

_LEVELS = ("minute", "index_usd", "mark_usd", "last_usd", "premium", "fund_usd", "fund_change_usd", "vault_equity_usd")
"""What holds at the end of a step; everything else adds up."""


def refuse_unknown(ds: xr.Dataset, venue: str | None, asset: str | None) -> None:
    """`InputError` unless a run, or its steps, have this venue and asset, where one is given, and positions there.

    Of a run that keeps no open interest only the steps tell whether there are positions.
    """
    given = _given(venue, asset)
    for name, x in given.items():
        if x not in ds[name].values:
            known = ", ".join(ds[name].values)
            raise InputError(f"--{name} is {x!r}, expected one of the run's: {known}. Give one of these.")
    if keeps(ds, "open_interest") and not float(ds["open_interest"].sel(given).max()) > 0:
        words = " ".join(f"--{name} {x}" for name, x in given.items())
        raise InputError(f"{words}: nobody holds a position there, expected a market with some. Give another one.")


def _given(venue: str | None, asset: str | None) -> dict[str, str]:
    return {name: x for name, x in (("venue", venue), ("asset", asset)) if x is not None}


def choose_market(steps: xr.Dataset, venue: str | None, asset: str | None) -> dict[str, str]:
    """The market whose prices are shown: as given, or else that in which most is closed.

    Raises:
        InputError: As `refuse_unknown`.
    """
    refuse_unknown(steps, venue, asset)
    some = {name: [x] for name, x in _given(venue, asset).items()}
    interest = steps["open_interest"].sel(some).max("step")
    closed = steps["liquidation_volume"].sel(some).sum(["step", "side"], dtype=np.float64)
    most = (closed if float(closed.max()) > 0 else interest).stack(market=("venue", "asset")).idxmax("market").item()
    return dict(zip(("venue", "asset"), most, strict=True))


def timeline(steps: xr.Dataset, venue: str | None = None, asset: str | None = None) -> Timeline:
    """A path as columns, one row a step.

    Prices are those of `choose_market`; `premium` is its mark over the index, less 1. Volumes are sums over the venue
    and the asset given, or over all; what funds and vaults pay and have, and accounts, over the venue given, or all.

    Args:
        steps: From `explain`.
        venue: One of its venues.
        asset: One of its assets.

    Raises:
        InputError: As `choose_market`.
    """
    shown = choose_market(steps, venue, asset)
    some = {name: [x] for name, x in _given(venue, asset).items()}
    venues = [str(name) for name in steps["venue"].values if venue in (None, name)]
    pools = [pool for pool in steps["pool"].values if str(pool).partition("/")[0] in venues]
    index, mark, last = steps["index"].sel(asset=shown["asset"]), steps["mark"].sel(shown), steps["last"].sel(shown)

    def volume(name: str) -> xr.DataArray:
        over = [dim for dim in ("venue", "asset", "side") if dim in steps[name].dims]
        return steps[name].sel(some).sum(over, dtype=float)

    def money(name: str) -> np.ndarray:
        return steps[name].sel(pool=pools).sum("pool", dtype=float).values

    layers, vaults = volume("absorbed_volume"), steps["vault_equity"].sel(venue=venues).dropna("venue", how="all")
    fund, start = money("fund_equity"), float(steps["fund_start"].sel(pool=pools).sum())
    return {
        "minute": steps["step"].values,
        "index_usd": index.values,
        "mark_usd": mark.values,
        "last_usd": last.values,
        "premium": (mark / index - 1).values,
        "triggered_usd": volume("first_round_volume").values,
        "closed_usd": volume("liquidation_volume").values,
        **{f"{layer}_usd": layers.sel(layer=layer).values for layer in layers["layer"].values},
        "adl_haircut_usd": volume("adl_haircut").values,
        "deficit_usd": money("deficit"),
        "surplus_usd": money("surplus"),
        "socialised_usd": money("socialised_loss"),
        "fund_usd": fund,
        "fund_change_usd": fund - start,
        **({"vault_equity_usd": vaults.sum("venue").values} if vaults.sizes["venue"] else {}),
        "accounts": steps["accounts_liquidated"].sel(venue=venues).sum("venue", dtype=float).values,
    }


def by_minute(of: Timeline, step_seconds: int) -> Timeline:
    """The same with steps that are a part of a minute added up to minutes."""
    together = 1 if 60 % step_seconds else 60 // step_seconds
    rows = {name: column.reshape(-1, together) for name, column in of.items()}
    return {name: row[:, -1] if name in _LEVELS else row.sum(axis=1) for name, row in rows.items()}


def largest_hour(of: Timeline) -> int:
    """The clock hour in which most is closed, counted from 0."""
    hour = np.ceil(of["minute"] / 60 - 1e-9).astype(int) - 1
    return int(np.bincount(hour, of["closed_usd"]).argmax())


def layer_names(of: Timeline) -> list[str]:
    """Layers of the run, in their order."""
    names = list(of)
    first, last = names.index("closed_usd") + 1, names.index("adl_haircut_usd")
    return [name.removesuffix("_usd") for name in names[first:last]]
