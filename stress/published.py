"""Figures published for the model's defaults, and the cases that they belong to: what differs, what is read off.

They were computed account by account by an independent program, on one or two synthetic populations of 25,000 rows:
money in M USD, one figure a population where there are two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stress.config import Run

if TYPE_CHECKING:
    import xarray as xr

_MILLION = 1e6
_BETA = {"ETH": 1.15, "SOL": 1.6, "XRP": 1.3, "DOGE": 1.5}

Measure = Callable[["xr.Dataset"], float]


@dataclass(frozen=True)
class Figure:
    """One published quantity of a case, and how it is read off our own run."""

    quantity: str
    published: tuple[float, ...]
    measure: Measure
    unit: str = "M USD"
    total: bool = False
    """A total of forced closings, which 15 % are asked of where it is large enough."""


@dataclass(frozen=True)
class Case:
    """What differs from the defaults, by dotted key (`*` stands for every key), and what was published."""

    name: str
    changes: Mapping[str, Any]
    figures: tuple[Figure, ...]
    select: Callable[[Run], np.ndarray] | None = None
    """Which paths count, one flag a path; all if absent."""
    needs_prices: bool = False


@dataclass(frozen=True)
class File:
    """A TOML file beside the config, as the value of a key."""

    name: str


@dataclass(frozen=True)
class Times:
    """What was there, times a factor."""

    factor: float


def one_jump(run: Run) -> np.ndarray:
    """Paths on which prices jump exactly once, by path.

    On such a path the jump's time is uniform over the day whatever the intensity, so the intensity may be raised to
    find many. A second jump that starts and ends within the longest duration of one counts with it.
    """
    import jax
    import jax.numpy as jnp
    from stress_kernels.shocks import jumps
    from stress_kernels.simulate import path_keys

    from stress.build import build

    shock = build(run).shock
    assert shock.jumps is not None
    keys = path_keys(jnp.uint32(run.seed), jnp.int32(0), run.paths)
    log = np.asarray(jax.jit(jumps.paths, static_argnums=2)(shock.jumps, keys, shock.steps)[:, 0])
    moves = np.diff(log, axis=0, prepend=0.0) != 0
    first, last = moves.argmax(axis=0), len(moves) - 1 - moves[::-1].argmax(axis=0)
    return moves.any(axis=0) & (last - first <= np.ceil(float(shock.jumps.longest)))


# ------------------------------------------------------------------------------------------------- what is read off
def _hours(ds: xr.Dataset) -> np.ndarray:
    """Forced closings by path and hour [M USD]."""
    return ds["liquidation_volume"].sum(["venue", "asset", "side"], dtype=np.float64).values / _MILLION


def _total(*published: float, quantity: str = "total") -> Figure:
    return Figure(quantity, published, lambda ds: float(_hours(ds).mean(axis=0).sum()), total=True)


def _layer(name: str, *published: float) -> Figure:
    def measure(ds: xr.Dataset) -> float:
        return float(ds["absorbed_volume"].sel(layer=name).sum(dtype=np.float64)) / ds.sizes["path"] / _MILLION

    return Figure(name, published, measure)


def _money(name: str, quantity: str, *published: float) -> Figure:
    def measure(ds: xr.Dataset) -> float:
        return float(ds[name].sum(dtype=np.float64)) / ds.sizes["path"] / _MILLION

    return Figure(quantity, published, measure)


def _socialised(published: float) -> Figure:
    return _money("socialised_loss", "socialised", published)


def _falls(*published: float) -> tuple[Figure, ...]:
    """Largest fall of the fund of each venue, in their order."""

    def of(pool: int) -> Measure:
        return lambda ds: float(ds["fund_drawdown"].isel(pool=pool).mean()) / _MILLION

    names = ("Binance", "Bybit", "OKX")
    return tuple(Figure(f"fall of {names[i]}'s fund", (value,), of(i)) for i, value in enumerate(published))


def _low(asset: str, *published: float) -> Figure:
    def measure(ds: xr.Dataset) -> float:
        return 100 * float(ds["index_low"].sel(asset=asset).min(["hour"]).mean() - 1)

    return Figure(f"index low {asset}", published, measure, "%")


def _share(dim: str, label: str, published: float) -> Figure:
    def measure(ds: xr.Dataset) -> float:
        by = ds["liquidation_volume"].sum([d for d in ds["liquidation_volume"].dims if d != dim], dtype=np.float64)
        return 100 * float(by.sel({dim: label}) / by.sum())

    return Figure(f"share {label}", (published,), measure, "%")


def _sampled(quantity: str, published: float, measure: Callable[[np.ndarray], Any], unit: str = "M USD") -> Figure:
    """A statistic of the forced closings by path and hour."""
    return Figure(quantity, (published,), lambda ds: float(measure(_hours(ds))), unit)


# -------------------------------------------------------------------------------------------------------- the cases
def _moves(minutes: Sequence[float], moves: Sequence[float], **changes: Any) -> dict[str, Any]:
    """BTC through given points, the others by beta, over two hours."""
    shock = {"kind": "prescribed", "minutes": list(minutes), "moves": {"BTC": list(moves)}, "beta": _BETA}
    return {"paths": 1, "chunk": 16, "shock": shock} | {key.replace("__", "."): v for key, v in changes.items()}


_NO_IMPACT = {"impact.i_ref": 0.0}
_FINE = {"step_seconds": 10}
_TENTH = {"venues.*.pools.*.equity_usd": Times(0.1)}
_FIVE = _moves([10, 50, 60, 120], [0, -0.05, -0.04, -0.03])
_NINE = _moves([15, 27, 60, 120], [0, -0.09, -0.04, -0.04])
_TWELVE = _moves([15, 18, 60, 120], [0, -0.12, -0.08, -0.08])
_TWENTY = _moves([15, 18, 60, 120], [0, -0.20, -0.12, -0.12])


def _static(percent: float, published: float) -> Case:
    """All that one step at the end of the run triggers, in as many rounds as a step has."""
    unlimited = {"venues.*.markets.*.throughput_usd_per_minute": 1e15}
    changes = _moves([119, 120], [0, percent / 100]) | unlimited | _NO_IMPACT
    return Case(f"BTC {percent:+g} % at once, no impact", changes, (_total(published),))


def _one_changed(name: str, published: float, changes: Mapping[str, Any]) -> Case:
    return Case(f"BTC -9 %: {name}", _NINE | dict(changes), (_total(published),))


def _crash(name: str, changes: Mapping[str, Any], layers: tuple[float, ...], *others: Figure) -> Case:
    """A crash whose layers were published; their sum is its total."""
    named = zip(("book", "auction", "takeover", "adl"), layers, strict=True)
    figures = (_total(sum(layers)), *(_layer(layer, value) for layer, value in named), *others)
    return Case(name, changes, figures)


def _replay(
    name: str, published: tuple[float, float], low: float, shock: Mapping[str, Any], i_ref: float = 0.01
) -> Case:
    """19 May 2021, minute closes, at the sizes, volumes, volatilities and brackets of that spring."""
    changes = {
        "paths": 1, "chunk": 16, "horizon_hours": 24, "impact.i_ref": i_ref,
        "assets": {a: {"daily_volatility": s} for a, s in (("BTC", 0.045), ("ETH", 0.055), ("XRP", 0.08))},
        "venues": {v: File(f"venues/{v}-2021-03.toml") for v in ("binance", "bybit", "okx")},
        "portfolio.population": File("populations/2021-05.toml"), "portfolio.block_usd": 3.75e9,
        "shock": {"kind": "replay", "start": "2021-05-19T00:00:00Z", **shock},
    }  # fmt: skip
    return Case(f"19 May 2021: {name}", changes, (_total(*published), _low("BTC", low)), needs_prices=True)


_DIFFUSION = {
    "daily_volatility": {"BTC": 0.022, "ETH": 0.028, "SOL": 0.045, "XRP": 0.035, "DOGE": 0.042},
    "correlation": 0.72,
}
_JUMPS = {"per_day": 1.0, "mean": -0.002, "sd": 0.028, "minutes": [1, 15], "beta": {"BTC": 1.0, **_BETA}}
_DAYS = {"paths": 512, "chunk": 128, "horizon_hours": 24}

CASES: tuple[Case, ...] = (
    *(
        _static(percent, published)
        for percent, published in zip(
            (-1, -2, -5, -9, -13, -20, 1, 5), (110, 200, 590, 1900, 4140, 9020, 57, 270), strict=True
        )
    ),
    Case("days without jumps", _DAYS | {"shock": {"kind": "gbm", **_DIFFUSION}}, (
        _sampled("hour, median", 3, np.median), _sampled("hour, mean", 12, np.mean),
        _sampled("hour, 95 %", 58, lambda x: np.quantile(x, 0.95)),
        _sampled("hour, 99 %", 93, lambda x: np.quantile(x, 0.99)),
        Figure("day, median", (280,), lambda ds: float(np.median(_hours(ds).sum(axis=1))), total=True),
        _share("side", "long", 64), _share("asset", "BTC", 49), _share("asset", "ETH", 27),
    )),
    Case("days with one jump", _DAYS | {"shock": {"kind": "merton", **_DIFFUSION, "common": _JUMPS}}, (
        _sampled("hour, mean", 22, np.mean), _sampled("hour, 99 %", 256, lambda x: np.quantile(x, 0.99)),
        _sampled("largest hour, median", 113, lambda x: np.median(x.max(axis=1))),
        _sampled("largest hour, 95 %", 730, lambda x: np.quantile(x.max(axis=1), 0.95)),
        _sampled("chance of an hour above 601 M", 8, lambda x: 100 * np.mean(x.max(axis=1) > 601), "%"),
        _share("side", "long", 72), _share("asset", "BTC", 54), _share("asset", "ETH", 24),
    ), select=one_jump),
    Case("BTC -5 % in 40 min, no impact", _FIVE | _NO_IMPACT, (_total(573, 627),)),
    Case("BTC -5 % in 40 min", _FIVE, (_total(684, 804),)),
    Case("BTC -5 % in 40 min, 10 s", _FIVE | _FINE, (_total(684, 804),)),
    Case("BTC -9 % in 12 min, no impact", _NINE | _NO_IMPACT, (_total(1976, 1938),)),
    Case("BTC -9 % in 12 min", _NINE, (
        _total(4296, 4332), _layer("book", 3897, 4180), _layer("auction", 60, 31), _layer("takeover", 339, 121),
        _money("deficit", "deficits", 107, 116),
        _low("BTC", -12.9, -12.7), _low("ETH", -12.6, -13.1), _low("SOL", -17.8, -18.8),
    )),
    Case("BTC -9 % in 12 min, 10 s", _NINE | _FINE, (_total(4341, 4457),)),
    Case("BTC -9 %: 1 round", _NINE | {"rounds": 1}, (_total(4151, 4063),)),
    Case("BTC -9 %: 20 rounds", _NINE | {"rounds": 20}, (_total(4296, 4347),)),
    *(
        _one_changed(f"rho {rho}", total, {"impact.rho": rho})
        for rho, total in ((0.3, 3490), (0.5, 5410), (0.6, 6760), (0.8, 9620))
    ),
    _one_changed("mark = last", 11310, {"venues.*.mark": "last"}),
    _one_changed("depth does not withdraw", 2440, {"impact.depth": False}),
    _one_changed("delta 0.5", 2900, {"impact.delta": 0.5}),
    _one_changed("delta 0.9", 5310, {"impact.delta": 0.9}),
    _one_changed("take bound doubled", 4470, {"venues.*.markets.*.take_bound_bps": Times(2)}),
    _crash("BTC -12 % in 3 min", _TWELVE, (2380, 290, 4050, 520), *_falls(225, 118, 76)),
    _crash("BTC -12 % in 3 min, funds of a tenth", _TWELVE | _TENTH, (2020, 260, 415, 4260), _socialised(11)),
    _crash("BTC -20 % in 3 min", _TWENTY, (3240, 300, 4250, 4390), *_falls(590, 196, 220)),
    _crash("BTC -20 % in 3 min, funds of a tenth", _TWENTY | _TENTH, (2940, 230, 355, 8350), _socialised(220)),
    _replay("no impact", (7643, 7686), -29.8, {}, i_ref=0.0),
    _replay("pin_index", (8075, 8180), -29.8, {"pin_index": True}),
    _replay("scale 0.8", (7810, 7886), -29.2, {"scale": 0.8}),
    _replay("scale 1", (8827, 8883), -34.5, {}),
)  # fmt: skip
