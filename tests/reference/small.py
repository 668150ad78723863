"""Small runs for comparison and for closed forms: plain venues, and books whose every trigger has a rung of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stress.config import Run
from stress.portfolio import Positions

BALLAST = 5
"""Shorts of a tenth of a dollar with almost the same far trigger: they take neighbouring rungs, and so make the
look-up equally wide in all small books, which then share one compiled program."""


def market(**changes: object) -> dict[str, object]:
    """A deep market: maintenance 1 %, no auction, no unwinding, no limit that binds."""
    return {
        "tiers": [{"floor_usd": 0, "rate": 0.01}],
        "tiers_source": "made up",
        "adv_usd": 1e9,
        "take_bound_bps": 5000,
        "throughput_usd_per_minute": 1e15,
        "auction_usd_per_hour": 0,
        "auction_discount_bps": 100,
        "unwind_usd_per_minute": 0,
        "source": "made up",
    } | changes


def venue(name: str, markets: dict[str, dict], **changes: object) -> dict[str, object]:
    """A plain venue: no fee, surplus to the pool, whole closings, one large pool that takes nothing over."""
    return {
        "name": name,
        "source": "made up",
        "liquidation_fee_bps": 0,
        "fee_in_trigger": False,
        "surplus_to": "pool",
        "mark": "median",
        "mark_window_minutes": 10,
        "staging": {"kind": "full"},
        "adl": {"ranking": "queue", "close_at": "bankruptcy", "drawdown_window_hours": 8},
        "funding": {"interval_hours": 1000, "interest": 0, "clamp": 0, "cap": 0.01, "source": "made up"},
        "pools": [pool()],
        "markets": markets,
    } | changes


def pool(equity_usd: float = 1e9, multiple: float = 0, **changes: object) -> dict[str, object]:
    """A pool of a venue."""
    return {"name": "main", "equity_usd": equity_usd, "takeover_multiple": multiple, "source": "made up"} | changes


def run_of(venues: list[dict], assets: dict[str, float], positions: Path | None, **changes: object) -> Run:
    """A run without impact, in 64 bits, of two hours of one-minute steps; its shock is never drawn.

    Args:
        venues: From `venue`.
        assets: Daily volatility of each; all start at 100 USD.
        positions: File of the accounts.
        changes: Over the defaults.
    """
    data = {
        "name": "small",
        "horizon_hours": 2,
        "barrier_correction": False,
        "dtype": "float64",
        "venues": {str(v["name"]): v for v in venues},
        "assets": {a: {"daily_volatility": sigma} for a, sigma in assets.items()},
        "prices": {"start": dict.fromkeys(assets, 100.0)},
        "portfolio": {"positions": str(positions)},
        "shock": {"kind": "prescribed", "minutes": [1], "moves": {a: [0.0] for a in assets}},
        "impact": {"i_ref": 0.0},
        "ladder": {"rungs": 512},
    }
    return Run.model_validate(data | changes)


def positions_of(rows: list[tuple], ballast: int = BALLAST, entry: float = 100.0) -> Positions:
    """Positions from rows of (venue, asset, quantity, entry price, margin, count), and the ballast: shorts that are
    worth the same whatever their entry price, but for whether they win."""
    margin = 0.5 + 1e-3 * (100.0 - entry)
    rows = [*rows, *((0, 0, -1e-3, entry, margin + 1e-9 * i, 1.0) for i in range(ballast))]
    venue, asset, *columns = np.array(rows, float).T
    return Positions(venue.astype(np.int32), asset.astype(np.int32), *columns)


def write_positions(path: Path, positions: Positions, venues: list[str], assets: list[str]) -> None:
    """A Parquet file of isolated positions, as a user would write it."""
    rows = len(positions.quantity)
    table = {
        "venue": [venues[v] for v in positions.venue],
        "account": [f"account {i}" for i in range(rows)],
        "asset": [assets[a] for a in positions.asset],
        "quantity": positions.quantity,
        "entry_price": positions.entry_price,
        "margin": positions.margin,
        "mode": ["isolated"] * rows,
        "count": positions.count.astype(np.int64),
    }
    pq.write_table(pa.table(table), path)


def crowd(
    rng: np.random.Generator,
    markets: list[tuple[int, int]],
    entry: float | None = None,
    leverage: tuple[float, float] = (3, 40),
    each: int = 24,
) -> list[tuple]:
    """Rows of `each` longs and shorts in every market, a million USD apiece in the median, 1 to 3 copies.

    Args:
        rng: Source of sizes and leverages.
        markets: Venue and asset of each.
        entry: Of every account [USD]; around 100 where absent.
        leverage: Range of notional over equity at the start.
        each: Accounts of a market side.
    """
    rows = []
    for v, a in markets:
        for sign in (1.0, -1.0):
            multiple = rng.uniform(*leverage, each)
            price = 100 * np.exp(rng.normal(0, 0.02, each)) if entry is None else np.full(each, entry)
            coins = sign * rng.lognormal(0, 1, each) * 1e4
            margin = np.abs(coins) * 100 / multiple - coins * (100 - price)
            count = rng.integers(1, 4, each)
            rows += [(v, a, *row) for row in zip(coins, price, margin, count, strict=True)]
    return rows


def two_way(rng: np.random.Generator, steps: int, paths: int) -> np.ndarray:
    """Log indices of two assets that fall by a fifth, recover, jump up and crash [step, A, path]."""
    fall = np.zeros((steps, 1, paths))
    fall[20:24], fall[40:60] = np.log(0.8) / 4, np.log(1.25) / 20
    fall[70:73], fall[90:92] = np.log(1.2) / 3, np.log(0.7) / 2
    return _noisy(rng, fall * rng.uniform(0.7, 1.3, paths), 1e-3)


def crash(rng: np.random.Generator, steps: int, paths: int) -> np.ndarray:
    """Log indices of two assets that only fall, in three jumps [step, A, path]."""
    fall = np.zeros((steps, 1, paths))
    fall[20:24], fall[70:72], fall[80] = np.log(0.85) / 4, np.log(0.8) / 2, np.log(0.95)
    return _noisy(rng, fall * rng.uniform(0.8, 1.1, paths), 3e-4)


def plateaus(rng: np.random.Generator, steps: int, paths: int) -> np.ndarray:
    """Log indices of two assets that jump and then stand still, so that a queue works at one price [step, A, path]."""
    jump = np.log(rng.choice([0.8, 0.85, 0.9, 1.15], paths, replace=paths > 4))
    level = np.zeros((steps, 2, paths))
    level[5:50], level[50:70], level[70:] = jump, jump / 2, 1.2 * jump
    return level


def _noisy(rng: np.random.Generator, moves: np.ndarray, noise: float) -> np.ndarray:
    steps, _, paths = moves.shape
    both = moves * np.array([1.0, 1.2])[:, None]
    return np.cumsum(both + rng.normal(0, noise, (steps, 2, paths)), axis=0)
