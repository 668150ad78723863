"""Days of accounts on ladders alone, which the fast kernels know, and what they have to agree in with the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from reference import small
from stress.config import Run

ASSETS, HOURS, PATHS = ("BTC", "ETH", "SOL"), 3, 24
"""Paths fill no blocks and vectors, and assets no tile."""
STEPS = HOURS * 30


def config(folder: Path, **limits: Any) -> Run:
    """Two venues with different rules and more accounts than rungs; impact, fees, partial closes, funding.

    Args:
        folder: Where to keep the accounts.
        limits: Of the first venue's fund or markets, without any of which none binds; and the impact.
    """
    fund, multiple = limits.get("fund", 1e8), limits.get("multiple", 0)
    market = {"adv_usd": 4e7, "throughput_usd_per_minute": limits.get("throughput", 1e9)}
    market |= {"take_bound_bps": limits.get("bound", 5000), "auction_usd_per_hour": limits.get("auction", 0)}
    market |= {"unwind_usd_per_minute": limits.get("unwind", 0)}
    tiers = {"tiers": [{"floor_usd": 0, "rate": 0.005}, {"floor_usd": 60_000, "rate": 0.01}]}
    funding = {"interval_hours": 1, "interest": 1e-4, "clamp": 5e-4, "cap": 0.003, "source": "made up"}
    # Compiled, the engine finds that the layers leave the last bit of an order, and would deleverage that.
    deleveraging = {"ranking": "queue", "close_at": "bankruptcy", "leftover": False}
    first = small.venue(
        "one",
        {a: small.market(**market, **tiers) for a in ASSETS},
        liquidation_fee_bps=50,
        staging={"kind": "tiers"},
        pools=[small.pool(fund, multiple)],
        adl=deleveraging | {"drawdown_share": 0.3, "drawdown_window_hours": 8},
        funding=funding,
    )
    other = small.venue(
        "two",
        {a: small.market(adv_usd=2e7) for a in ASSETS[:2]},
        mark="index_average",
        surplus_to="trader",
        liquidation_fee_bps=20,
        adl=deleveraging,
        funding=funding | {"interval_hours": 2},
    )
    return small.run_of(
        [first, other],
        dict.fromkeys(ASSETS, 0.05),
        accounts(folder),
        dtype="float32",
        horizon_hours=HOURS,
        step_seconds=120,
        barrier_correction=True,
        shock={"kind": "gbm", "correlation": 0.5, "daily_volatility": dict.fromkeys(ASSETS, 0.05)},
        impact=limits.get("impact", {"i_ref": 0.01, "contagion": 0.1}),
        ladder={"rungs": 256},
    )


def accounts(folder: Path) -> Path:
    """A file of 1,200 accounts of 2 to 40 times their margin, on both sides of all markets that are listed."""
    draw, lines = np.random.default_rng(5), ["venue,account,asset,quantity,entry_price,margin,mode"]
    markets = [("one", a) for a in ASSETS] + [("two", a) for a in ASSETS[:2]]
    for i in range(1200):
        venue, asset = markets[i % len(markets)]
        coins, leverage = draw.lognormal(5.5, 1.0), 2 * 20 ** draw.uniform()
        sign = 1 if draw.uniform() < 0.6 else -1
        lines.append(f"{venue},{i},{asset},{sign * coins:.4f},100,{100 * coins / leverage:.2f},isolated")
    file = folder / "positions.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def walk(drift: float, jump: float) -> np.ndarray:
    """Log indices (step a p): a diffusion of 3 % a day, a steady fall, and a jump in the second hour."""
    steps = np.random.default_rng(11).normal(0, 0.03 / np.sqrt(720), (STEPS, len(ASSETS), PATHS))
    steps[:60] += drift / 60
    steps[40] += jump
    return np.cumsum(steps, axis=0).astype(np.float32)


DAYS = {"calm": walk(0, 0), "fall": walk(-0.12, 0), "jump": walk(0.02, -0.08), "squeeze": walk(0.1, 0.05)}


BEHIND = {
    "auctions alone": {"bound": 60, "auction": 1e7},
    "pools that sell at once": {"bound": 60, "multiple": 3, "unwind": 1e6},
    "pools that hold": {"bound": 60, "multiple": 3, "unwind": 1e3},
    "both": {"bound": 30, "auction": 2e4, "multiple": 3, "unwind": 1e4, "fund": 2e7},
}
"""What layers behind the book take, of which the native kernel knows all."""
LIMITS = {
    "a book that does not take all": {"bound": 60},
    "makers and a pool that do not either": {"bound": 60, "auction": 1e3, "multiple": 0.001},
    "a queue": {"throughput": 3e4},
    "a fund that runs dry": {"fund": 1e6},
    "a fund that is drawn down": {"fund": 2.5e6},
}


def alike(ours: dict[str, Any], engines: dict[str, Any], which: np.ndarray) -> None:
    """All outputs are, to rounding: money and coins of a sum of 1e9 in 32 bits, triggers to the last bit of a price.

    Args:
        ours: Arrays with paths last.
        engines: The same.
        which: Paths to compare.
    """
    assert set(ours) == set(engines)
    for name, of in engines.items():
        scale = engines["fund_equity"] if name == "fund_drawdown" else of  # a difference of equities
        # What accounts have left is a small difference of what they hold and what they owe.
        share = 2e-5 if name == "surplus" else 2e-6
        least = 1e-6 if name == "ledger_residual" else share * np.max(np.nan_to_num(np.abs(scale)))
        got, wanted = (np.asarray(x[name])[..., which] for x in (ours, engines))
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=least, err_msg=name)
