"""The engine against the slow twin on small books, whose every trigger has a rung of its own: one mechanism at a time.

Two venues, two assets, three pools, two hours, 24 longs and 24 shorts in every market, float64. Here the ladder is
exact, and so is the comparison, to 1e-7 of the run's volume for money and to 1e-6 for everything else: what is left is
the series of the mean price (1e-10).

Where winners are closed (ADL) or bear a loss, all accounts have one entry price. By rank, paths only fall: the one
winner who is closed in part is harder to liquidate later, while a ladder keeps its trigger; in proportion, any path.
`adl_accounts` is compared nowhere: the ladder counts parts of accounts, and the same account again in every round. Nor
is what the largest winner keeps, which a table does not know. The shares of the largest are exact in proportion, where
entry prices are equal and no winner has been closed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import pytest
from reference.bridge import HOURLY, OF_LOSSES, engine, twin_of, watch_as_often, where_lost
from reference.small import crash, crowd, market, plateaus, pool, positions_of, run_of, two_way, venue, write_positions

from stress.build import build

PATHS, STEPS = 4, 120
ASSETS = {"A": 0.025, "B": 0.03}
SHORT_BOOK = {"take_bound_bps": 30}
LAYERS = SHORT_BOOK | {"auction_usd_per_hour": 2e6, "unwind_usd_per_minute": 3e5}
FUNDING = {"interval_hours": 0.25, "interest": 1e-3, "clamp": 5e-3, "cap": 2e-2, "source": "made up"}


@dataclass(frozen=True)
class Case:
    """A world, and what walks through it."""

    market: dict = field(default_factory=dict)
    venue: dict = field(default_factory=dict)
    run: dict = field(default_factory=dict)
    impact: float = 0.01
    winners: bool = False
    """Accounts of one entry price, paths that only fall."""
    path: Callable | None = None
    pin_index: bool = False
    unlisted: tuple = ()
    """Markets that do not exist, by venue and asset."""
    differs: tuple = ()
    """Outputs that depend on the order inside the queue, which is the ladder's and not the prose's."""
    markets: tuple = ((0, 0), (0, 1), (1, 0), (1, 1))
    socialised: bool = False
    tops: bool = False
    """Whether the shares of the largest winners are compared."""
    floor_usd: float = 0.0
    """Equity to which a pool of the second venue is topped up by the other one, at the end of every step."""
    layers: str = "book"
    """Layers that must take more than a million USD, and the others nothing."""


OF_TOPS = ("adl_top_share", "adl_top_10_share")


def adl(ranking: str = "queue", close_at: str = "bankruptcy", **more) -> dict:
    return {"adl": {"ranking": ranking, "close_at": close_at, "drawdown_window_hours": 8} | more}


def pools(equity: float, multiple: float = 1) -> dict:
    return {"pools": [pool(equity, multiple)]}


BREAKER = {"move": 0.15, "minutes": 3, "pause_minutes": 7.5}
IDLE = [
    {"kind": "depth_collapse", "times": 3},
    {"kind": "outage", "venue": "one"},
    {"kind": "funding_spike", "premium": 1e-2},
]
"""Over in the last step, so that one program serves all overlays."""


def overlays(*those: dict) -> dict:
    return {"overlays": [*those, *({"start_minutes": STEPS - 1, "minutes": 1} | idle for idle in IDLE)]}


def lasting(kind: str, start: float, minutes: float, **more) -> dict:
    return {"kind": kind, "start_minutes": start, "minutes": minutes} | more


GBM = {"kind": "gbm", "daily_volatility": {"A": 0.022, "B": 0.03}, "correlation": 0.5}
CASES = {
    "one market": Case(impact=0, markets=((0, 0),)),
    "impact": Case(markets=((0, 0),)),
    "two venues share the index": Case(markets=((0, 0), (1, 0))),
    "mark median": Case(venue={"mark": "median"}),
    "mark index_average": Case(venue={"mark": "index_average"}),
    "mark index": Case(venue={"mark": "index"}),
    "mark last": Case(venue={"mark": "last"}),
    "no depth divisor": Case(run={"impact": {"i_ref": 0.01, "depth": False}}),
    "contagion": Case(run={"impact": {"i_ref": 0.01, "contagion": 0.2, "delta": 0.5, "rho": 0.6}}),
    "delta 1": Case(run={"impact": {"i_ref": 0.003, "delta": 1.0}}),
    "index pinned": Case(pin_index=True),
    "barrier": Case(run={"barrier_correction": True, "shock": GBM}),
    "fee, surplus to the trader": Case(venue={"liquidation_fee_bps": 125, "surplus_to": "trader"}),
    "fee, surplus to the pool": Case(venue={"liquidation_fee_bps": 50}),
    "fee in the trigger": Case(venue={"liquidation_fee_bps": 50, "fee_in_trigger": True}),
    "funding": Case(venue={"funding": FUNDING}),
    "auction": Case(SHORT_BOOK | {"auction_usd_per_hour": 1e12}, layers="book auction"),
    "takeover": Case(SHORT_BOOK, pools(1e9, 3), layers="book takeover"),
    "takeover, unwound, funding": Case(
        SHORT_BOOK | {"unwind_usd_per_minute": 3e5}, pools(1e9, 3) | {"funding": FUNDING}, layers="book takeover"
    ),
    "takeover, unwound at a loss, topped up": Case(
        SHORT_BOOK | {"unwind_usd_per_minute": 3e7}, pools(1e9, 3), floor_usd=4.999e8, layers="book takeover"
    ),
    "adl for what is left": Case(SHORT_BOOK, winners=True, layers="book adl remainder"),
    "nothing left for adl": Case(SHORT_BOOK, adl(leftover=False), winners=True, layers="book remainder"),
    "nothing left for adl until the pool is exhausted": Case(
        SHORT_BOOK,
        adl("pro_rata", leftover=False) | pools(1e5, 0),
        winners=True,
        tops=True,
        socialised=True,
        layers="book adl remainder",
    ),
    "auction and adl": Case(LAYERS, winners=True, layers="book auction adl remainder"),
    **{
        f"adl by {ranking} at {close_at}": Case(
            SHORT_BOOK,
            adl(ranking, close_at) | pools(2e6),
            winners=True,
            tops=ranking == "pro_rata" and close_at != "mark",
            layers="book takeover adl remainder",
        )
        for ranking in ("queue", "pro_rata")
        for close_at in ("bankruptcy", "mark", "index")
    },
    **{
        f"adl by pro_rata at {close_at}, then back": Case(
            SHORT_BOOK,
            adl("pro_rata", close_at) | pools(2e6) | {"funding": FUNDING},
            path=two_way,
            winners=True,
            socialised=close_at != "bankruptcy",
            layers="book takeover adl remainder",
        )
        for close_at in ("bankruptcy", "mark", "index")
    },
    "all layers": Case(
        LAYERS, pools(1e7) | {"liquidation_fee_bps": 50}, winners=True, layers="book auction takeover adl remainder"
    ),
    "drawdown adl": Case(
        SHORT_BOOK,
        adl("pro_rata", "mark", drawdown_share=0.3) | pools(4e6),
        winners=True,
        layers="book takeover adl remainder",
    ),
    "drawdown adl, straight": Case(
        SHORT_BOOK,
        adl("queue", "mark", drawdown_share=0.3, straight_to_adl=True) | pools(4e6),
        winners=True,
        layers="book takeover adl remainder",
    ),
    "exhaustion and socialised losses": Case(
        venue=adl("pro_rata", "mark") | pools(1e5), winners=True, socialised=True, layers="book adl"
    ),
    "a circuit breaker": Case(venue={"breaker": BREAKER}, impact=0),
    "a circuit breaker and a queue": Case(
        {"throughput_usd_per_minute": 5e6},
        {"breaker": BREAKER},
        impact=0,
        path=plateaus,
        differs=("fund_low", "fund_drawdown"),
    ),
    "queue at a standing price": Case(
        {"throughput_usd_per_minute": 5e6}, impact=0, path=plateaus, differs=("fund_low", "fund_drawdown")
    ),
    "block, a market without accounts": Case(run={"block": 3e7}, markets=((0, 0), (0, 1), (1, 0))),
    "depth collapse": Case(
        run=overlays(lasting("depth_collapse", 20, 60, times=2, assets=["A"])), layers="book remainder"
    ),
    "depth collapse, no divisor of its own": Case(
        run=overlays(lasting("depth_collapse", 20, 60, times=4)) | {"impact": {"i_ref": 0.01, "depth": False}}
    ),
    "outage": Case(run=overlays(lasting("outage", 30, 40, venue="one"))),
    "outage while a pool unwinds": Case(
        SHORT_BOOK | {"unwind_usd_per_minute": 3e5},
        pools(1e9, 3) | {"mark": "index"},
        run=overlays(lasting("outage", 40, 30, venue="two")),
        layers="book takeover",
    ),
    **{
        f"stale index, mark {rule}": Case(
            venue={"mark": rule}, run=overlays(lasting("stale_index", 10.5, 50, venue="one"))
        )
        for rule in ("median", "index_average", "last", "index")
    },
    "slow engine at a standing price": Case(
        {"throughput_usd_per_minute": 5e6},
        impact=0,
        path=plateaus,
        run=overlays(lasting("slowdown", 20, 60, venue="one", share=0.3)),
        differs=("fund_low", "fund_drawdown"),
    ),
    "funding spike": Case(
        venue={"funding": FUNDING},
        run=overlays(lasting("funding_spike", 20, 60, premium=8e-3, venues=["two"])),
    ),
    "a market that is not listed": Case(impact=0.003, unlisted=(("one", 1),), markets=((0, 0), (1, 0), (1, 1))),
}
MONEY = {
    "liquidation_volume", "absorbed_volume", "deficit", "surplus", "fund_equity", "fund_low", "adl_volume",
    "adl_haircut", "adl_overshoot", "socialised_loss", "open_interest", "first_round_volume", "fund_drawdown",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def in_64_bits():
    with jax.enable_x64(True):
        yield


def simulated(case: Case, folder):
    """Outputs of both engines."""
    rng = np.random.default_rng(1)
    positions = positions_of(crowd(rng, list(case.markets), 100.0 if case.winners else None))
    file = folder / "positions.parquet"
    write_positions(file, positions, ["one", "two"], list(ASSETS))
    run = run_of([_venue(name, case) for name in ("one", "two")], ASSETS, file, **_run(case, file))
    built = build(run)
    assert built.book.exact
    draw = case.path or (crash if case.winners else two_way)
    path = draw(rng, STEPS, PATHS)
    return engine(path, built, case.pin_index), twin_of(path, run, positions, built, case.pin_index)


def _venue(name: str, case: Case) -> dict[str, Any]:
    """The first venue has one pool for both markets and any breaker, the second a pool for each, with half of it."""
    listed = [asset for a, asset in enumerate(ASSETS) if (name, a) not in case.unlisted]
    place: dict[str, Any] = venue(name, {asset: market(**case.market) for asset in listed}, **case.venue)
    if name == "two":
        place.pop("breaker", None)
        whole = place["pools"][0]
        half = whole | {"equity_usd": whole["equity_usd"] / 2}
        place["pools"] = [half | {"name": asset, "markets": [asset]} for asset in listed]
        if case.floor_usd:
            place["pools"][0] |= {"topped_up_by": listed[1], "floor_usd": case.floor_usd}
    return place


def _run(case: Case, file) -> dict:
    block = {"portfolio": {"positions": str(file), "block_usd": case.run.get("block", 0.0)}}
    return {"impact": {"i_ref": case.impact}} | block | {k: v for k, v in case.run.items() if k != "block"}


@pytest.mark.parametrize("name", CASES)
def test_small_book_is_exact(name, tmp_path, monkeypatch):
    watch_as_often(monkeypatch)
    case = CASES[name]
    ours, theirs = simulated(case, tmp_path)
    names = ("book", "auction", "takeover", "adl", "remainder")
    absorbed = theirs["absorbed_volume"].sum(axis=(0, 1, 2, 4))
    assert {n for n, usd in zip(names, absorbed, strict=True) if usd > 1e6} == set(case.layers.split())
    assert (theirs["socialised_loss"].sum() > 1e6) == case.socialised
    assert (theirs["paused"].sum() > 0) == ("breaker" in case.venue)
    volume = theirs["liquidation_volume"].sum(axis=(0, 1, 2, 3))
    unknown = {"adl_accounts", *OF_LOSSES} - (set(OF_TOPS) if case.tops else set())
    ours, theirs = where_lost(ours, theirs), where_lost(theirs, theirs)
    assert not case.tops or np.nanmax(theirs["adl_top_10_share"]) > np.nanmax(theirs["adl_top_share"]) > 0.01
    wrong = []
    for output in set(HOURLY) - unknown - set(case.differs):
        allowed = 1e-7 * volume if output in MONEY else 1e-6
        apart = np.abs(ours[output] - theirs[output])
        both_nan = np.isnan(ours[output]) & np.isnan(theirs[output])
        if not np.all(both_nan | (apart <= allowed)):
            wrong.append(f"{output}: {np.nanmax(apart):.3g} of {np.nanmax(np.abs(theirs[output])):.3g}")
    assert not wrong, wrong
    assert np.max(ours["ledger_residual"]) < 1e-12
