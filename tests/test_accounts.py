"""Accounts on cross margin against the slow twin, one mechanism at a time.

Two venues, two assets, three pools, two hours; 200 accounts with positions in one or both markets of a venue, besides a
small book of isolated ones on ladders; float64. The comparison is exact, to 1e-7 of the run's volume for money and to
1e-6 for everything else.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from reference import twin as slow
from reference.bridge import (
    HOURLY,
    OF_LOSSES,
    engine,
    log_returns,
    outputs,
    twin_accounts,
    twin_world,
    watch_as_often,
    where_lost,
)
from reference.small import crash, crowd, market, plateaus, pool, positions_of, run_of, two_way, venue, write_positions
from reference.twin import Accounts

from stress.build import _schedules, build
from stress.cross import CrossAccounts, compile_accounts

PATHS, STEPS = 4, 120
ASSETS = {"A": 0.025, "B": 0.03}
TIERS = [{"floor_usd": 0, "rate": 0.005}, {"floor_usd": 5e5, "rate": 0.01}, {"floor_usd": 2e6, "rate": 0.025}]
SHORT_BOOK = {"take_bound_bps": 30}
FUNDING = {"interval_hours": 0.25, "interest": 1e-3, "clamp": 5e-3, "cap": 2e-2, "source": "made up"}


def adl(ranking: str = "queue", close_at: str = "bankruptcy", **more) -> dict:
    return {"adl": {"ranking": ranking, "close_at": close_at, "drawdown_window_hours": 8} | more}


@dataclass(frozen=True)
class Case:
    """A world, and what walks through it."""

    market: dict = field(default_factory=dict)
    venue: dict = field(default_factory=dict)
    run: dict = field(default_factory=dict)
    impact: float = 0.01
    path: Callable = two_way
    layers: str = "book adl remainder"
    """Layers that must take more than a million USD, and the others nothing."""
    isolated: int = 4
    """Isolated longs and shorts in every market, on ladders."""
    one_pool: bool = False
    socialised: bool = False
    differs: tuple = ()


OF_WINNERS = (*OF_LOSSES, "adl_accounts")
"""What is not known of winners on ladders."""
TIERWISE = {"kind": "tiers", "down": 1, "whole_below": 1}
FIFTH = {"kind": "fraction", "share": 0.2, "above_usd": 1e6}
RESTORED = {"kind": "restore", "target": 1.5}


def staged(staging: dict, order: str = "proportional", impact: float = 0.003, path: Callable = two_way, **more) -> Case:
    """A case of partial closes; ladders, which do not pause and take every closing at its trigger, have no part.

    All goes to the book: of one who rests with next to no equity, ADL in the engine may take more than he has.
    """
    rules = {"staging": staging, "closing_order": order} | more
    return Case({"tiers": TIERS}, rules, impact=impact, path=path, layers="book", isolated=0)


CASES = {
    "no impact": Case(impact=0, layers="book"),
    "impact": Case(),
    "contagion": Case(run={"impact": {"i_ref": 0.01, "contagion": 0.2, "delta": 0.5, "rho": 0.6}}, layers="book"),
    "tiers of maintenance": Case({"tiers": TIERS}),
    "closed by tiers": staged(TIERWISE),
    "by tiers, a pause": staged(TIERWISE | {"pause_seconds": 90}),
    "riskiest first": staged({"kind": "full"}, "riskiest_first"),
    "by tiers, riskiest first": staged(TIERWISE, "riskiest_first"),
    "a fraction": staged(FIFTH),
    "a fraction, a pause": staged(FIFTH | {"pause_seconds": 30}),
    "a fraction, riskiest first, a pause": staged(FIFTH | {"pause_seconds": 30}, "riskiest_first"),
    "restored": staged(RESTORED),
    "restored, riskiest first, a pause": staged(RESTORED | {"pause_seconds": 120}, "riskiest_first"),
    "restored, fee in the trigger": staged(RESTORED, liquidation_fee_bps=50, fee_in_trigger=True),
    "a pause at a standing price": staged(FIFTH | {"pause_seconds": 200}, impact=0, path=plateaus),
    "by tiers, adl": Case(
        SHORT_BOOK | {"tiers": TIERS}, adl() | {"pools": [pool(2e6)], "staging": TIERWISE}, isolated=0, socialised=True
    ),
    "by tiers, socialised losses": Case(
        {"tiers": TIERS},
        adl("pro_rata", "mark") | {"pools": [pool(1e5)], "staging": TIERWISE},
        isolated=0,
        socialised=True,
    ),
    "fee, surplus to the trader": Case(venue={"liquidation_fee_bps": 125, "surplus_to": "trader"}),
    "fee, surplus to the pool": Case(venue={"liquidation_fee_bps": 50}),
    "fee in the trigger": Case(venue={"liquidation_fee_bps": 50, "fee_in_trigger": True}),
    "funding": Case(venue={"funding": FUNDING}, layers="book"),
    "auction": Case(SHORT_BOOK | {"auction_usd_per_hour": 1e12}, layers="book auction"),
    "takeover, unwound": Case(
        SHORT_BOOK | {"unwind_usd_per_minute": 3e5}, {"pools": [pool(1e9, 3)]}, layers="book takeover"
    ),
    "queue at a standing price": Case(
        {"throughput_usd_per_minute": 5e6},
        impact=0,
        path=plateaus,
        layers="book",
        one_pool=True,
        differs=("fund_low", "fund_drawdown"),
    ),
    **{
        f"adl by {ranking} at {close_at}": Case(
            SHORT_BOOK,
            adl(ranking, close_at) | {"pools": [pool(2e6)]},
            isolated=0,
            socialised=(ranking, close_at) != ("pro_rata", "bankruptcy"),
        )
        for ranking in ("queue", "pro_rata", "water_filling")
        for close_at in ("bankruptcy", "mark", "index")
    },
    "nothing left for adl": Case(SHORT_BOOK, adl(leftover=False), isolated=0, layers="book remainder"),
    "nothing left for adl until the pool is exhausted": Case(
        SHORT_BOOK,
        adl("water_filling", "index", leftover=False) | {"pools": [pool(2e6)]},
        isolated=0,
        socialised=True,
    ),
    "drawdown adl, straight": Case(
        SHORT_BOOK,
        adl("queue", "mark", drawdown_share=0.3, straight_to_adl=True) | {"pools": [pool(4e6)]},
        isolated=0,
        socialised=True,
    ),
    "exhaustion and socialised losses": Case(
        venue=adl("pro_rata", "mark") | {"pools": [pool(1e5)]}, socialised=True, isolated=0
    ),
}
MONEY = {
    "liquidation_volume", "absorbed_volume", "deficit", "surplus", "fund_equity", "fund_low", "adl_volume",
    "adl_haircut", "adl_overshoot", "socialised_loss", "open_interest", "first_round_volume", "fund_drawdown",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def in_64_bits():
    with jax.enable_x64(True):
        yield


def cross_crowd(rng: np.random.Generator, n: int) -> CrossAccounts:
    """Accounts of 3 to 40 times leverage, a million USD a position in the median, one in four with one position."""
    quantity = rng.choice([-1.0, 1.0], (n, 2)) * rng.lognormal(0, 1, (n, 2)) * 1e4 * (rng.random((n, 2)) < [1, 0.75])
    entry = np.where(quantity != 0, 100 * np.exp(rng.normal(0, 0.02, (n, 2))), 0.0)
    notional = np.abs(quantity).sum(axis=1) * 100
    cash = notional / rng.uniform(3, 25, n) - np.sum(quantity * (100 - entry), axis=1)
    count = rng.integers(1, 4, n).astype(float)
    return CrossAccounts(rng.integers(0, 2, n).astype(np.int32), quantity, entry, cash, count, np.arange(n))


def simulated(case: Case, folder, seed: int = 1):
    """Outputs of both engines."""
    rng = np.random.default_rng(seed)
    positions = positions_of(crowd(rng, [(0, 0), (0, 1), (1, 0), (1, 1)], None, each=case.isolated), entry=10.0)
    cross = cross_crowd(rng, 200)
    file = folder / "positions.parquet"
    write_positions(file, positions, ["one", "two"], list(ASSETS))
    places: list[dict[str, Any]] = [
        venue(name, {a: market(**case.market) for a in ASSETS}, **case.venue) for name in ("one", "two")
    ]
    if not case.one_pool:
        half = places[1]["pools"][0] | {"equity_usd": places[1]["pools"][0]["equity_usd"] / 2}
        places[1]["pools"] = [half | {"name": a, "markets": [a]} for a in ASSETS]
    run = run_of(places, ASSETS, file, **({"impact": {"i_ref": case.impact}} | case.run))
    built = build(run)
    path = case.path(rng, STEPS, PATHS)
    accounts = compile_accounts(cross, _schedules(run), built.start_price, 2, np.zeros((2, 2)))
    world = twin_world(run, positions, built.start_price)
    alone = twin_accounts(positions, 2)
    everyone = Accounts(
        *(
            np.concatenate([getattr(alone, mine), theirs])
            for mine, theirs in {
                "venue": cross.venue, "quantity": cross.quantity, "entry": cross.entry_price, "cash": cross.cash,
                "coins": np.zeros_like(cross.quantity), "count": cross.count,
            }.items()
        )
    )  # fmt: skip
    each = [slow.simulate(world, everyone, log_returns(x)) for x in np.moveaxis(path, -1, 0)]
    theirs = outputs(each)
    return where_lost(engine(path, built, accounts=accounts), theirs), where_lost(theirs, theirs)


def differing(ours, theirs, differs: tuple = ()) -> list[str]:
    """Outputs that are not the same.

    Shares of what winners lose against the mark are as good as that loss, the small difference of two prices. Where
    socialised losses have taken all of an account's equity, rounding decides whether it is a winner, and counted.
    """
    volume = theirs["liquidation_volume"].sum(axis=(0, 1, 2, 3))
    loss, socialised = theirs["adl_loss"], theirs["socialised_loss"].sum(axis=(0, 1))
    rounding = 2e-7 * theirs["adl_volume"].sum(axis=2) / np.where(loss > 0, loss, np.inf)
    wrong = []
    for output in sorted(set(HOURLY) - set(differs)):
        allowed = 1e-7 * volume if output in MONEY else 1e-6
        if output in OF_LOSSES:
            allowed = 1e-6 + rounding * np.abs(theirs[output])
        if output == "adl_accounts":
            allowed = np.where(socialised > 0, 5.0, 1e-6)
        apart = np.abs(ours[output] - theirs[output])
        both_nan = np.isnan(ours[output]) & np.isnan(theirs[output])
        if not np.all(both_nan | (apart <= allowed)):
            wrong.append(f"{output}: {np.nanmax(apart):.3g} of {np.nanmax(np.abs(theirs[output])):.3g}")
    return wrong


@pytest.mark.parametrize("name", CASES)
def test_cross_accounts_are_exact(name, tmp_path, monkeypatch):
    watch_as_often(monkeypatch)
    case = CASES[name]
    ours, theirs = simulated(case, tmp_path)
    names = ("book", "auction", "takeover", "adl", "remainder")
    absorbed = theirs["absorbed_volume"].sum(axis=(0, 1, 2, 4))
    wrong = differing(ours, theirs, (*case.differs, *(OF_WINNERS if case.isolated else ())))
    assert not wrong, wrong
    assert (theirs["socialised_loss"].sum() > 1e6) == case.socialised
    assert {n for n, usd in zip(names, absorbed, strict=True) if usd > 1e6} == set(case.layers.split())
    assert np.max(ours["ledger_residual"]) < 1e-12


RULES = st.fixed_dictionaries(
    {
        "impact": st.sampled_from([0.0, 0.003, 0.01]),
        "take_bound_bps": st.sampled_from([10, 100, 5000]),
        "auction_usd_per_hour": st.sampled_from([0, 2e6]),
        "unwind_usd_per_minute": st.sampled_from([0, 3e5]),
        "liquidation_fee_bps": st.sampled_from([0, 50, 125]),
        "fee_in_trigger": st.booleans(),
        "surplus_to": st.sampled_from(["trader", "pool"]),
        "mark": st.sampled_from(["median", "index_average", "last"]),
        "staging": st.sampled_from(["full", "tiers"]),
        "ranking": st.sampled_from(["queue", "pro_rata", "water_filling"]),
        "close_at": st.sampled_from(["bankruptcy", "mark", "index"]),
        "drawdown_share": st.sampled_from([None, 0.3]),
        "straight_to_adl": st.booleans(),
        "leftover": st.booleans(),
        "pool_usd": st.sampled_from([1e5, 4e6, 1e9]),
        "takeover_multiple": st.sampled_from([0, 3]),
        "funding": st.booleans(),
        "crash": st.booleans(),
        "seed": st.integers(0, 2**16),
    }
)


@given(RULES)
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_random_worlds_are_exact(tmp_path_factory, rules):
    """Any rules, any accounts: one program, as shapes do not change.

    Who is cut by tiers meets no marks that are last prices: there the error of the take bound (2^-24 of a flow) is the
    next round's mark, and may decide whether a position is at a floor. Nor a fee that takes all that a cut leaves: of
    who has nothing left, rounding decides whether he is cut again or closed whole.
    """
    capacity = ("take_bound_bps", "auction_usd_per_hour", "unwind_usd_per_minute")
    of_market = {key: rules[key] for key in capacity} | {"tiers": TIERS}
    of_venue = {key: rules[key] for key in ("liquidation_fee_bps", "fee_in_trigger", "surplus_to", "mark")}
    how = {key: rules[key] for key in ("drawdown_share", "straight_to_adl") if rules["drawdown_share"] is not None}
    how |= {"leftover": rules["leftover"]}
    if rules["staging"] == "tiers" and rules["mark"] == "last":
        of_venue["mark"] = "median"
    if rules["staging"] == "tiers":
        of_venue["liquidation_fee_bps"] = min(rules["liquidation_fee_bps"], 50)
    staging = {"kind": "full"} if rules["staging"] == "full" else {"kind": "tiers", "down": 1, "whole_below": 1}
    case = Case(
        of_market,
        of_venue
        | adl(rules["ranking"], rules["close_at"], **how)
        | {"staging": staging, "pools": [pool(rules["pool_usd"], rules["takeover_multiple"])]}
        | ({"funding": FUNDING} if rules["funding"] else {}),
        impact=rules["impact"],
        path=crash if rules["crash"] else two_way,
        isolated=0,
    )
    with pytest.MonkeyPatch.context() as patch:
        watch_as_often(patch)
        ours, theirs = simulated(case, tmp_path_factory.mktemp("random"), rules["seed"])
    assert not differing(ours, theirs)
