"""Makers that leave, holders that close, and fresh accounts against the slow twin, where the ladder is exact.

One program serves all: what a case leaves out is there with a share of nothing, or a spike that never comes.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from reference.bridge import HOURLY, OF_LOSSES, engine, twin_of, watch_as_often
from reference.small import crash, crowd, market, positions_of, run_of, two_way, venue, write_positions

from stress.build import build

PATHS, STEPS = 4, 120
ASSETS = {"A": 0.025, "B": 0.03}
NEVER = {"move": 1e3, "minutes": 30, "source": "made up"}
SPIKE = {"move": 3.0, "minutes": 30, "source": "made up"}
LEAVE = {"share": 0.6, "return_minutes": 45}
CLOSE = {"per_hour": 0.4, "calm_minutes": 40}
INFLOW = {
    "per_day": 3.0, "held_hours": 0.75, "cohorts": 3, "least_leverage": 8, "most_leverage": 60, "account_usd": 1e5,
    "levels": 8, "source": "made up",
}  # fmt: skip
BARELY = INFLOW | {"per_day": 1e-12}
FUNDING = {"interval_hours": 0.25, "interest": 1e-3, "clamp": 5e-3, "cap": 2e-2, "source": "made up"}
SHORT_BOOK = {"take_bound_bps": 30}
AT_THE_MARK = {"adl": {"ranking": "queue", "close_at": "mark", "drawdown_window_hours": 8, "leftover": False}}
"""What the layers leave is closed at the mark: no winner is closed, whom a ladder knows by his class alone."""
BY_PROFIT = {"adl": {"ranking": "pro_rata", "close_at": "mark", "drawdown_window_hours": 8}}
MAKERS = SHORT_BOOK | {"auction_usd_per_hour": 2e7}
MONEY = {
    "liquidation_volume", "absorbed_volume", "deficit", "surplus", "fund_equity", "fund_low", "adl_volume",
    "adl_haircut", "adl_overshoot", "socialised_loss", "open_interest", "first_round_volume", "fund_drawdown",
    "voluntary_volume", "opened_volume",
}  # fmt: skip


CASES: dict[str, dict[str, Any]] = {
    "makers leave": {"makers": SPIKE, "market": MAKERS, "venue": AT_THE_MARK},
    "holders close": {"close": SPIKE},
    "holders close, funding, median": {"close": SPIKE, "venue": {"funding": FUNDING}},
    "fresh accounts": {"inflow": INFLOW},
    "fresh accounts, mostly short, funding": {"inflow": INFLOW | {"long_share": 0.2}, "venue": {"funding": FUNDING}},
    "all": {
        "makers": SPIKE, "close": SPIKE, "inflow": INFLOW, "market": MAKERS,
        "venue": AT_THE_MARK | {"liquidation_fee_bps": 50},
    },
    "all, winners are closed": {
        "makers": SPIKE, "close": SPIKE, "inflow": INFLOW, "market": SHORT_BOOK, "venue": BY_PROFIT, "path": crash,
    },
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def in_64_bits():
    with jax.enable_x64(True):
        yield


def config(folder, case: dict[str, Any]):
    """A run of two venues and two assets, and its positions."""
    rng = np.random.default_rng(1)
    entry = 100.0 if case.get("path") is crash else None
    positions = positions_of(crowd(rng, [(0, 0), (0, 1), (1, 0), (1, 1)], entry))
    file = folder / "positions.parquet"
    write_positions(file, positions, ["one", "two"], list(ASSETS))
    places = [venue(v, {a: market(**case.get("market", {})) for a in ASSETS}, **case.get("venue", {}))
              for v in ("one", "two")]  # fmt: skip
    behaviour = {
        "makers_leave": LEAVE | case.get("makers", NEVER),
        "deleveraging": CLOSE | case.get("close", NEVER),
        "inflow": case.get("inflow", BARELY),
    }
    return run_of(places, ASSETS, file, impact={"i_ref": 0.01}, behaviour=behaviour), positions


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_accounts_do_one_by_one(name, tmp_path, monkeypatch):
    watch_as_often(monkeypatch)
    case = CASES[name]
    run, positions = config(tmp_path, case)
    built = build(run)
    assert built.book.exact
    path = case.get("path", two_way)(np.random.default_rng(2), STEPS, PATHS)
    ours, theirs = engine(path, built), twin_of(path, run, positions, built)
    volume = theirs["liquidation_volume"].sum(axis=(0, 1, 2, 3))
    assert (theirs["opened_volume"].sum() > 1e6) == ("inflow" in case)
    assert (theirs["voluntary_volume"].sum() > 1e6) == ("inflow" in case or "close" in case)
    wrong = []
    for output in set(HOURLY) - {"adl_accounts", *OF_LOSSES}:
        allowed = 1e-7 * volume if output in MONEY else 1e-6
        apart = np.abs(ours[output] - theirs[output])
        both_nan = np.isnan(ours[output]) & np.isnan(theirs[output])
        if not np.all(both_nan | (apart <= allowed)):
            wrong.append(f"{output}: {np.nanmax(apart):.3g} of {np.nanmax(np.abs(theirs[output])):.3g}")
    assert not wrong, wrong
    assert np.max(ours["ledger_residual"]) < 1e-12
