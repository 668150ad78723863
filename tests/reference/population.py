"""A stressed run of a synthetic population, for the comparison with the twin, the ledger and the invariances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stress.build import Built, build
from stress.config import Run, load_config
from stress.portfolio import Positions

from .bridge import tiers

CONFIG = Path(__file__).parents[2] / "configs" / "reference.toml"
VENUES = ("binance", "bybit", "okx")
BETA = np.array([1.0, 1.15])
PATHS, STEPS = 6, 120
THIN = dict(zip(VENUES, (1.2e8, 4e7, 3e7), strict=True))
"""Equity of the pools at a tenth of the defaults [USD]."""
POINTS = (
    ([10, 50, 60, 120], [0, -0.05, -0.04, -0.03]),
    ([15, 27, 60, 120], [0, -0.09, -0.04, -0.04]),
    ([15, 18, 60, 120], [0, -0.12, -0.08, -0.08]),
    ([15, 18, 60, 120], [0, -0.20, -0.12, -0.12]),
    ([10, 14, 30, 60, 65, 120], [0, 0.07, 0.02, 0.02, -0.10, -0.06]),
    ([15, 18, 60, 75, 120], [0, -0.15, -0.06, 0.10, 0.08]),
)
"""Minutes, and BTC's move from the start at them, log-linear between; the last is a crash that turns into a rally."""


def stressed(rows: int = 6000, **overrides: Any) -> tuple[Run, Built]:
    """The reference configuration on BTC and ETH, two hours, with a coarse population.

    Args:
        rows: Of the population.
        overrides: By dotted key, dots written as two underscores; `staging`, `ranking`, `throughput` and `pool_usd`
            hold for all venues.
    """
    changes: dict[str, Any] = {
        "assets": {"BTC": {"daily_volatility": 0.026}, "ETH": {"daily_volatility": 0.032}},
        "portfolio.population.asset_shares": {"BTC": 0.65, "ETH": 0.35},
        "portfolio.population.leverage.asset_tilt": {"BTC": 1.03, "ETH": 0.83},
        "portfolio.population.rows": rows,
        "horizon_hours": 2,
    }
    everywhere = {"staging": "staging", "ranking": "adl.ranking"}
    for key, value in overrides.items():
        for name in VENUES:
            if key in everywhere:
                changes[f"venues.{name}.{everywhere[key]}"] = value
            elif key == "throughput":
                changes |= {f"venues.{name}.markets.{a}.throughput_usd_per_minute": value for a in ("BTC", "ETH")}
            elif key == "pool_usd":
                one = {"name": "main", "equity_usd": value[name], "takeover_multiple": 3, "source": "made up"}
                changes[f"venues.{name}.pools"] = [one]
            else:
                changes[key.replace("__", ".")] = value
    run = load_config(CONFIG, overrides=changes)
    return run, build(run)


def positions_of(run: Run, built: Built) -> Positions:
    """The population that `build` has drawn."""
    volatility = np.array([asset.daily_volatility for asset in run.assets.values()])
    assert run.portfolio.population is not None
    return run.portfolio.population.draw(list(run.venues), list(run.assets), built.start_price, volatility, *tiers(run))


def paths(seed: int = 1) -> np.ndarray:
    """Log indices after each minute, correlated noise around `POINTS`, in the engine's 32 bits [step, A, path]."""
    rng = np.random.default_rng(seed)
    common, own = rng.normal(size=(STEPS, 1, PATHS)), rng.normal(size=(STEPS, 2, PATHS))
    sd = np.array([0.022, 0.028])[:, None] / np.sqrt(1440)
    noise = np.cumsum((np.sqrt(0.72) * common + np.sqrt(0.28) * own) * sd, axis=0)
    minutes = np.arange(1, STEPS + 1)
    moves = np.stack([np.interp(minutes, [0, *t], np.log1p([0, *m])) for t, m in POINTS], axis=-1)
    return (noise + BETA[:, None] * moves[:, None]).astype(np.float32)
