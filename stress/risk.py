"""What is read off a run: its volumes and who absorbs them, as figures and as lines of text.

Paths that failed (`status` other than 0) are left out and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from stress import absorbers
from stress.absorbers import Distribution, Payers, PoolRisk, Sold, VaultRisk, distribution
from stress.intervals import Estimate, Weighed, probability, shortfall_interval
from stress.results import by_path, effective_paths, keeps, sound, weights

if TYPE_CHECKING:
    import xarray as xr

HOUR_THRESHOLD_USD = 601e6
"""Liquidations of the headline hour at Binance, Bybit and OKX in 2025, weakly sourced [USD]."""
DAY_THRESHOLD_USD = 1.57e9
"""Liquidations of the 24 hours around it [USD]."""
FEWEST_HITS = 10
"""Equally weighted paths, with the event, below which a chance under importance sampling is not said."""


@dataclass(frozen=True)
class Summary:
    """The figures of a run that a risk committee asks for first."""

    paths: int
    failed: int
    """Paths that failed; they are in nothing else here, `paths` included."""
    effective_paths: float
    """(sum of weights)^2 / sum of squared weights; as many as paths without importance sampling."""
    hours: int
    hourly: Distribution
    """Liquidation volume of an hour, over all hours of all paths [USD]."""
    shortfall: Estimate
    """Mean of the largest 1 % of hours [USD]."""
    worst_path: int
    worst_hour: int
    hour_threshold: float
    some_hour_above: Estimate
    """Chance that some hour of the run is above `hour_threshold`."""
    day_threshold: float
    day_hours: int
    """24, or the length of a shorter run [h]."""
    day_above: Estimate
    """Chance that some `day_hours` consecutive hours sum to more than `day_threshold`."""
    long_share: float
    asset_shares: Mapping[str, float]
    """Of assets with open interest: a token that is collateral only has none."""
    pools: Mapping[str, PoolRisk]
    vaults: Mapping[str, VaultRisk]
    """By venue, where there is something to say; so are payers and sold."""
    adl: Mapping[str, Distribution]
    """Volume over the whole run, by venue [USD]."""
    payers: Mapping[str, Payers]
    sold: Mapping[str, Sold]
    stopped: Distribution | None
    """Volume of stop orders over the whole run, where there is any [USD]."""


def summary(
    ds: xr.Dataset, hour_threshold: float = HOUR_THRESHOLD_USD, day_threshold: float = DAY_THRESHOLD_USD
) -> Summary:
    """The figures of a run; thresholds in USD.

    Raises:
        InputError: The run does not keep `liquidation_volume`. What else it does not keep is left out.
        RunError: All paths failed.
    """
    kept = sound(ds)
    weight = weights(kept)
    volume = by_path(kept, "liquidation_volume", "hour")
    split = np.tensordot(weight, by_path(kept, "liquidation_volume", "asset", "side"), 1)
    split /= split.sum() or np.nan
    held = (split > 0).any(axis=1)
    if keeps(kept, "open_interest"):
        held = held | (by_path(kept, "open_interest", "asset") > 0).any(axis=0)
    worst_path, worst_hour = np.unravel_index(volume.argmax(), volume.shape)
    day = min(24, volume.shape[1])
    days = sliding_window_view(volume, day, axis=1).sum(axis=-1)
    return Summary(
        paths=len(weight),
        failed=ds.sizes["path"] - len(weight),
        effective_paths=effective_paths(weight),
        hours=volume.shape[1],
        hourly=distribution(volume, weight),
        shortfall=shortfall_interval(volume, 0.99, weight),
        worst_path=int(kept["path"].values[worst_path]),
        worst_hour=int(kept["hour"].values[worst_hour]),
        hour_threshold=hour_threshold,
        some_hour_above=probability(volume.max(axis=1) > hour_threshold, weight),
        day_threshold=day_threshold,
        day_hours=day,
        day_above=probability((days > day_threshold).any(axis=1), weight),
        long_share=float(split[:, list(kept["side"].values).index("long")].sum()),
        asset_shares={str(kept["asset"].values[a]): float(split[a].sum()) for a in np.flatnonzero(held)},
        pools=absorbers.pools(kept, weight),
        vaults=absorbers.vaults(kept, weight),
        adl=absorbers.deleveraged(kept, weight),
        payers=absorbers.payers(kept, weight),
        sold=absorbers.sold(kept, weight),
        stopped=absorbers.stopped(kept, weight),
    )


_UNITS = (1e9, "bn USD"), (1e6, "M USD"), (1e3, "k USD"), (1.0, "USD")


def unit_of(largest: float, most: float = 1e9) -> tuple[float, str]:
    """What to count amounts in of which this is the largest [USD], and its name: at most `most`, a power of 1000."""
    return next((unit, name) for unit, name in _UNITS if unit == 1 or unit <= min(most, largest))


def usd(amount: float) -> str:
    """An amount as people write it, three digits: `601 M USD`, `1.57 bn USD`."""
    for unit, name in ((1e9, "bn "), (1e6, "M "), (1e3, "k ")):
        if abs(amount) >= 0.9995 * unit:
            scaled = amount / unit
            digits = 0 if abs(scaled) >= 99.95 else 1 if abs(scaled) >= 9.995 else 2
            return f"{scaled:,.{digits}f} {name}USD"
    return f"{amount:z.0f} USD"


def percent(share: float) -> str:
    """A share in per cent, two digits where it is small."""
    scaled = 100 * share
    if 99.9 < scaled < 100:
        return f"{100 - float(f'{100 - scaled:.2g}'):.6g} %"
    return f"{scaled:.0f} %" if scaled in (0, 100) else f"{scaled:.1f} %" if scaled >= 0.995 else f"{scaled:.2g} %"


def span(e: Estimate, text: Callable[[float], str]) -> str:
    """The interval of a figure in words; an end that the paths cannot tell is left open."""
    if np.isinf(e.low):
        return f"{text(e.high)} or less" if np.isfinite(e.high) else "unknown"
    return f"{text(e.low)} or more" if np.isinf(e.high) else f"{text(e.low)} to {text(e.high)}"


class Row(NamedTuple):
    """A line of the summary table, ready to print."""

    group: str
    quantity: str
    value: str
    interval: str = ""


def summary_table(ds: xr.Dataset | Summary) -> list[Row]:
    """The summary of a run as lines of text."""
    s = ds if isinstance(ds, Summary) else summary(ds)
    rows = [Row("run", "paths", f"{s.paths:,}" + (f" ({s.failed:,} failed and left out)" if s.failed else ""))]
    if s.effective_paths < 0.999 * s.paths:
        rows.append(Row("run", "paths they are worth, by their weights", f"{s.effective_paths:,.0f}"))
    hourly = [_money("hourly volume", f"{_level(q)} of hours", e) for q, e in s.hourly.quantiles.items()]
    rows += [*hourly, _money("hourly volume", "mean of the largest 1 % of hours", s.shortfall)]
    rows += [
        Row("hourly volume", f"largest (path {s.worst_path}, hour {s.worst_hour})", usd(s.hourly.largest)),
        *_chance("chance per run", f"an hour above {usd(s.hour_threshold)}", s.some_hour_above),
        *_chance("chance per run", f"{s.day_hours} h above {usd(s.day_threshold)}", s.day_above),
    ]
    if s.hourly.largest > 0:
        parts = {"longs": s.long_share, **s.asset_shares}
        rows += [Row("composition", name, percent(share)) for name, share in parts.items()]
    return [*rows, *_stop_rows(s), *_fund_rows(s), *_vault_rows(s), *_adl_rows(s), *_sold_rows(s)]


def _stop_rows(s: Summary) -> Iterator[Row]:
    if s.stopped is not None:
        yield Row("stop orders", "volume per run, mean", usd(s.stopped.mean))
        yield _money("stop orders", "volume per run, 99 % of runs", s.stopped.quantiles[0.99])


def _fund_rows(s: Summary) -> Iterator[Row]:
    for name, pool in s.pools.items():
        group = f"fund {name}"
        if pool.funded:
            for q, e in pool.drawdown.quantiles.items():
                yield _money(group, f"drawdown, {_level(q)} of runs", e)
            yield Row(group, "drawdown, largest", usd(pool.drawdown.largest))
            yield from _chance(group, "chance of exhaustion", pool.exhausted)
        if pool.funded or pool.socialised.largest > 0:
            yield Row(group, "socialised loss, mean", usd(pool.socialised.mean))
            yield _money(group, "socialised loss, 99 % of runs", pool.socialised.quantiles[0.99])
            yield from _chance(group, "chance of a socialised loss", pool.socialised.positive)


def _vault_rows(s: Summary) -> Iterator[Row]:
    for name, vault in s.vaults.items():
        group = f"vault at {name}"
        yield Row(group, "profit, mean", usd(vault.mean))
        for q, e in vault.profit.items():
            yield _money(group, f"profit, {_level(q)} of runs", e)
        yield Row(group, "profit, smallest", usd(vault.smallest))
        yield from _chance(group, "chance of a loss", vault.loss)
        for q, e in vault.lowest.items():
            yield _money(group, f"lowest equity, {_level(q)} of runs", e)
        yield from _chance(group, "chance of exhaustion", vault.exhausted)


def _times(ratio: float) -> str:
    return f"{ratio:.{2 if abs(ratio) < 9.995 else 1}f} x"


_PAYERS = {
    "adl_open_interest": ("largest share of an open interest", percent),
    "adl_top_share": ("loss borne by the top 1 % of winners", percent),
    "adl_top_10_share": ("loss borne by the top 10 % of winners", percent),
    "adl_top_keeps_of_total": ("profit left to the top winner / all losses", _times),
    "adl_top_keeps_of_largest": ("profit left to the top winner / largest loss", _times),
}
"""What to call a median of `Payers`, and how to write it."""


def _adl_rows(s: Summary) -> Iterator[Row]:
    for name, adl in s.adl.items():
        group = f"ADL at {name}"
        yield Row(group, "volume, mean", usd(adl.mean))
        yield _money(group, "volume, 99 % of runs", adl.quantiles[0.99])
        yield from _chance(group, "chance of any", adl.positive)
        if name in s.payers:
            yield Row(group, "winners' loss, mean", usd(s.payers[name].haircut))
            yield Row(group, "less losers' need, mean", usd(s.payers[name].overshoot))
    for name, paid in s.payers.items():
        for variable, e in paid.medians.items():
            quantity, text = _PAYERS[variable]
            yield Row(f"winners at {name}", quantity, text(e.value), span(e, text))


def _sold_rows(s: Summary) -> Iterator[Row]:
    for name, sold in s.sold.items():
        group = f"sold at {name}"
        yield Row(group, "volume, mean", usd(sold.volume.mean))
        yield _money(group, "volume, 99 % of runs", sold.volume.quantiles[0.99])
        yield from _chance(group, "chance of any", sold.volume.positive)
        for token, share in sold.shares.items():
            yield Row(group, f"share of {token}", percent(share))


def _level(q: float) -> str:
    return "median" if q == 0.5 else f"{100 * q:g} %"


def _money(group: str, quantity: str, e: Estimate) -> Row:
    return Row(group, quantity, usd(e.value), span(e, usd))


def _chance(group: str, quantity: str, e: Estimate) -> Iterator[Row]:
    """A chance, and under importance sampling what it rests on; not said where that is too little."""
    if not isinstance(e, Weighed):
        yield Row(group, quantity, percent(e.value), span(e, percent))
    elif 0 < e.hits < FEWEST_HITS:
        advice = f"{e.hits:.1f} effective paths, {FEWEST_HITS} needed: tilt to it"
        yield Row(group, quantity, "not known", advice)
    else:
        yield Row(group, quantity, percent(e.value), span(e, percent))
        if e.hits > 0:
            yield Row(group, f"{quantity}: rests on", f"{e.hits:,.0f} paths", f"as by {e.draws:,.0f} plain ones")
