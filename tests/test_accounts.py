"""Accounts on cross margin against the slow twin, one mechanism at a time.

Two venues, two assets with perpetuals and a token, three pools, two hours; 200 accounts with positions in one or both
markets of a venue, besides a small book of isolated ones on ladders; float64. The comparison is exact, to 1e-7 of the
run's volume for money and to 1e-6 for everything else.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
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
    unusual,
    watch_as_often,
    where_lost,
)
from reference.small import crash, crowd, market, plateaus, pool, positions_of, run_of, two_way, venue, write_positions
from reference.twin import Accounts
from stress_kernels.account_margin import Look, short_of_margin

from stress.build import _barrier, _schedules, build
from stress.closings import Schedule
from stress.cross import CrossAccounts, compile_accounts
from stress.money import currencies
from stress.rules import world_of
from stress.variables import LAYERS, WITH_VAULT
from stress.venues import WholeStaging

PATHS, STEPS = 4, 120
MARKETS = ("A", "B")
ASSETS = {"A": 0.025, "B": 0.03, "T": 0.01}
TOKEN = {"daily_volatility": 0.01, "spot_adv_usd": 1e8}
TIERS = [{"floor_usd": 0, "rate": 0.005}, {"floor_usd": 5e5, "rate": 0.01}, {"floor_usd": 2e6, "rate": 0.025}]
FLAT = [{"floor_usd": 0, "rate": 0.01}, {"floor_usd": 1e12, "rate": 0.02}, {"floor_usd": 2e12, "rate": 0.03}]
"""One rate for all there are, in as many rows as `TIERS`, so that cases with and without tiers share a program."""
SHORT_BOOK = {"take_bound_bps": 30}
FUNDING = {
    "interval_hours": 0.25, "interest": 1e-3, "clamp": 5e-3, "cap": 2e-2, "divisor": 1.25, "source": "made up",
}  # fmt: skip


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
    coins: float = 0.0
    """Share of what backs an account that is in coins of all three assets."""
    inverse: tuple[tuple[str, str], ...] = ()
    """Venue and asset of inverse contracts."""
    sold: bool = False
    """Whether more than a million USD of coins are sold."""
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


HAIRCUTS = {"haircuts": {"A": 0.05, "B": 0.1, "T": 0.2}}
GBM = {"kind": "gbm", "daily_volatility": ASSETS, "correlation": 0.5}
OFF_ITS_PEG = {
    "overlays": [
        {"kind": "depeg", "token": "T", "venue": "two", "share": 0.3, "start_minutes": 10, "minutes": 30},
        {"kind": "depeg", "token": "A", "venue": "one", "share": 0.1, "start_minutes": 60, "minutes": 15},
    ]
}


BREAKER = {"move": 0.1, "minutes": 3, "pause_minutes": 7.5}


def vault(equity: float, capacity: float, **more) -> dict:
    """Rules with a backstop vault."""
    rule = {"equity_usd": equity, "capacity_usd": capacity, "unwind_usd_per_minute": 0, "source": "made up"}
    return {"vault": rule | more}


INVERSE = {
    "book": Case(venue=HAIRCUTS, isolated=0),
    "tiers, fee in the trigger": Case(
        {"tiers": TIERS},
        HAIRCUTS | {"staging": TIERWISE, "liquidation_fee_bps": 50, "fee_in_trigger": True},
        layers="book",
        impact=0.003,
        isolated=0,
    ),
    "auction, takeover, funding": Case(
        SHORT_BOOK | {"unwind_usd_per_minute": 3e5, "auction_usd_per_hour": 2e6},
        HAIRCUTS | {"pools": [pool(1e9, 3)], "funding": FUNDING, "liquidation_fee_bps": 50},
        layers="book auction takeover",
        isolated=0,
    ),
    **{
        f"adl by {ranking} at {close_at}": Case(
            SHORT_BOOK, HAIRCUTS | adl(ranking, close_at) | {"pools": [pool(2e6)]}, isolated=0, socialised=True
        )
        for ranking, close_at in (("queue", "bankruptcy"), ("pro_rata", "index"), ("queue", "mark"))
    },
    "barrier": Case(venue=HAIRCUTS, isolated=0, run={"barrier_correction": True, "shock": GBM}),
}
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
    "a circuit breaker, a fraction, a pause, a queue": Case(
        {"tiers": TIERS, "throughput_usd_per_minute": 5e6},
        {"breaker": BREAKER, "staging": FIFTH | {"pause_seconds": 90}, "funding": FUNDING},
        impact=0.003,
        layers="book",
        isolated=0,
    ),
    "queue at a standing price": Case(
        {"throughput_usd_per_minute": 5e6},
        impact=0,
        path=plateaus,
        layers="book",
        one_pool=True,
        differs=("fund_low", "fund_drawdown"),
    ),
    "queue in a fall": Case(
        SHORT_BOOK | {"throughput_usd_per_minute": 1e6}, {"pools": [pool(2e6)]}, isolated=0, socialised=True
    ),
    "queue, coins, inverse, a vault": Case(
        SHORT_BOOK | {"throughput_usd_per_minute": 2e6},
        HAIRCUTS | vault(1e7, 3e7) | {"liquidation_fee_bps": 50, "staging": TIERWISE},
        coins=0.9,
        inverse=(("one", "B"), ("two", "A")),
        layers="book vault adl remainder",
        isolated=0,
        sold=True,
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
    "coins": Case(venue=HAIRCUTS, coins=0.8, sold=True),
    "coins, fee, surplus to the pool": Case(venue=HAIRCUTS | {"liquidation_fee_bps": 50}, coins=0.8, sold=True),
    "coins, fee, surplus to the trader": Case(
        venue=HAIRCUTS | {"liquidation_fee_bps": 125, "fee_in_trigger": True, "surplus_to": "trader"},
        coins=0.8,
        sold=True,
    ),
    "coins, by tiers, adl": Case(
        SHORT_BOOK | {"tiers": TIERS},
        HAIRCUTS | adl() | {"pools": [pool(2e6)], "staging": TIERWISE, "liquidation_fee_bps": 50},
        coins=0.8,
        isolated=0,
        sold=True,
    ),
    "coins, restored, takeover": Case(
        SHORT_BOOK | {"unwind_usd_per_minute": 3e5},
        HAIRCUTS | {"pools": [pool(1e9, 3)], "staging": RESTORED},
        coins=0.8,
        layers="book takeover",
        isolated=0,
        sold=True,
    ),
    "coins, barrier": Case(venue=HAIRCUTS, coins=0.8, sold=True, run={"barrier_correction": True, "shock": GBM}),
    "a token off its peg": Case(venue=HAIRCUTS, coins=0.9, sold=True, run=OFF_ITS_PEG),
    "a token off its peg, adl, pools run dry": Case(
        SHORT_BOOK,
        HAIRCUTS | adl("pro_rata", "mark") | {"pools": [pool(2e5)]},
        coins=0.9,
        sold=True,
        isolated=0,
        socialised=True,
        run=OFF_ITS_PEG,
    ),
    **{
        f"inverse: {name}": replace(case, coins=0.9, inverse=(("one", "B"), ("two", "A")), sold=True)
        for name, case in INVERSE.items()
    },
    "a vault": Case(SHORT_BOOK, vault(1e7, 3e7), layers="book vault adl remainder", isolated=0),
    "a vault within bounds, unwound": Case(
        SHORT_BOOK,
        vault(1e7, 3e8, profit_bps=[50, 250], unwind_usd_per_minute=2e5),
        layers="book vault adl remainder",
        isolated=0,
    ),
    "a vault behind an empty pool": Case(
        SHORT_BOOK,
        vault(1e7, 3e7, entry_ratio=0.5) | adl("queue", "mark") | {"pools": [pool(0)], "funding": FUNDING},
        layers="book vault adl remainder",
        isolated=0,
        socialised=True,
    ),
    "a vault, straight to adl": Case(
        SHORT_BOOK,
        vault(1e7, 3e7) | adl("queue", "mark", drawdown_share=0.3, straight_to_adl=True) | {"pools": [pool(4e6)]},
        layers="book vault adl remainder",
        isolated=0,
        socialised=True,
    ),
    "a vault, coins, inverse": Case(
        SHORT_BOOK,
        HAIRCUTS | vault(1e7, 3e7, profit_bps=[-100, 100], unwind_usd_per_minute=1e5) | {"liquidation_fee_bps": 50},
        coins=0.9,
        inverse=(("one", "B"), ("two", "A")),
        layers="book vault adl remainder",
        isolated=0,
        sold=True,
    ),
    "pools top each other up": Case(
        SHORT_BOOK,
        {
            "pools": [
                pool(2e7, 3, topped_up_by="second", floor_usd=1.5e7, markets=["A"]),
                pool(2e7, 3, name="second", markets=["B"], floor_usd=5e6),
            ]
        },
        layers="book takeover adl remainder",
        isolated=0,
        one_pool=True,
    ),
    "exhaustion and socialised losses": Case(
        venue=adl("pro_rata", "mark") | {"pools": [pool(1e5)]}, socialised=True, isolated=0
    ),
}
MONEY = {
    "liquidation_volume", "absorbed_volume", "deficit", "surplus", "fund_equity", "fund_low", "adl_volume",
    "adl_haircut", "adl_overshoot", "socialised_loss", "open_interest", "first_round_volume", "fund_drawdown",
    "collateral_sold", "vault_equity", "vault_profit",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def in_64_bits():
    with jax.enable_x64(True):
        yield


def cross_crowd(rng: np.random.Generator, n: int, case: Case) -> CrossAccounts:
    """Accounts of 3 to 40 times leverage, a million USD a position in the median, one in four with one position."""
    quantity = rng.choice([-1.0, 1.0], (n, 2)) * rng.lognormal(0, 1, (n, 2)) * 1e4 * (rng.random((n, 2)) < [1, 0.75])
    entry = np.where(quantity != 0, 100 * np.exp(rng.normal(0, 0.02, (n, 2))), 0.0)
    notional = np.abs(quantity).sum(axis=1) * 100
    margin = notional / rng.uniform(3, 25, n)
    count, venue = rng.integers(1, 4, n).astype(float), rng.integers(0, 2, n).astype(np.int32)
    profit = np.sum(quantity * (100 - entry), axis=1)
    coins = case.coins * margin[:, None] / 100 * rng.dirichlet([1, 1, 1], n)
    inverse = np.array([[(name, a) in case.inverse for a in MARKETS] for name in ("one", "two")])[venue]
    quantity = np.where(inverse, 100 * quantity, quantity)
    third = np.zeros((n, 1))
    return CrossAccounts(
        venue,
        np.hstack([quantity, third]),
        np.hstack([entry, third]),
        (1 - case.coins) * margin - profit,
        count,
        np.arange(n),
        coins,
    )


def simulated(case: Case, folder, seed: int = 1):
    """Outputs of both engines."""
    rng = np.random.default_rng(seed)
    positions = positions_of(crowd(rng, [(0, 0), (0, 1), (1, 0), (1, 1)], None, each=case.isolated), entry=10.0)
    cross = cross_crowd(rng, 200, case)
    file = folder / "positions.parquet"
    write_positions(file, positions, ["one", "two"], list(ASSETS))
    places = [_venue(name, case) for name in ("one", "two")]
    run = run_of(places, SPECS, file, **({"impact": {"i_ref": case.impact}} | case.run))
    built, money = build(run), currencies(run, cross)
    path = case.path(rng, STEPS, PATHS)
    path = np.concatenate([path, 0.1 * path[:, :1]], axis=1)
    covariance = _barrier(run)
    accounts = compile_accounts(cross, _schedules(run), built.start_price, 2, covariance, currencies=money)
    built = replace(built, world=world_of(run, built.held, money, built.world.lanes, None))
    world = twin_world(run, positions, built.start_price)
    alone = twin_accounts(positions, len(ASSETS))
    everyone = Accounts(
        *(
            np.concatenate([getattr(alone, mine), theirs])
            for mine, theirs in {
                "venue": cross.venue, "quantity": cross.quantity, "entry": cross.entry_price, "cash": cross.cash,
                "coins": cross.coins, "count": cross.count,
            }.items()
        )
    )  # fmt: skip
    off = unusual(run, STEPS)
    each = [slow.simulate(world, everyone, log_returns(x), unusual=off) for x in np.moveaxis(path, -1, 0)]
    theirs = outputs(each, world)
    return where_lost(engine(path, built, accounts=accounts), theirs), where_lost(theirs, theirs)


SPECS = {name: TOKEN if name == "T" else {"daily_volatility": sigma} for name, sigma in ASSETS.items()}


def _venue(name: str, case: Case) -> dict[str, Any]:
    """The first venue has one pool for both markets and any breaker, the second a pool for each, with half of it."""
    contract = {a: "inverse" if (name, a) in case.inverse else "linear" for a in MARKETS}
    place: dict[str, Any] = venue(
        name, {a: market(contract=contract[a], **({"tiers": FLAT} | case.market)) for a in MARKETS}, **case.venue
    )
    if name == "two":
        place.pop("breaker", None)
    if name == "two" and not case.one_pool:
        half = place["pools"][0] | {"equity_usd": place["pools"][0]["equity_usd"] / 2}
        place["pools"] = [half | {"name": a, "markets": [a]} for a in MARKETS]
    return place


def differing(ours, theirs, differs: tuple = ()) -> list[str]:
    """Outputs that are not the same.

    Shares of what winners lose against the mark are as good as that loss, the small difference of two prices. Where
    socialised losses have taken all of an account's equity, rounding decides whether it is a winner, and counted.
    """
    volume = theirs["liquidation_volume"].sum(axis=(0, 1, 2, 3))
    loss, socialised = theirs["adl_loss"], theirs["socialised_loss"].sum(axis=(0, 1))
    rounding = 1e-6 * theirs["adl_volume"].sum(axis=2) / np.where(loss > 0, loss, np.inf)
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
    """With blocks by direction, as large populations have them; the random worlds below have mixed ones."""
    watch_as_often(monkeypatch)
    monkeypatch.setattr("stress.cross.APART_FROM", 0)
    case = CASES[name]
    ours, theirs = simulated(case, tmp_path)
    with_vault = case.venue.get("vault") is not None
    names = WITH_VAULT if with_vault else LAYERS
    absorbed = theirs["absorbed_volume"].sum(axis=(0, 1, 2, 4))
    wrong = differing(ours, theirs, (*case.differs, *(OF_WINNERS if case.isolated else ())))
    assert not wrong, wrong
    assert (theirs["socialised_loss"].sum() > 1e6) == case.socialised
    assert {n for n, usd in zip(names, absorbed, strict=True) if usd > 1e6} == set(case.layers.split())
    assert (theirs["collateral_sold"].sum() > 1e6) == case.sold
    assert (theirs["paused"].sum() > 0) == ("breaker" in case.venue)
    assert np.max(ours["ledger_residual"]) < 1e-12


@pytest.mark.parametrize(("asset", "price"), [(0, 1153.26), (1, 26316.89)])
def test_published_cross_liquidation_prices(asset, price):
    """Binance's worked example: the other position stays at its mark, 1335.18 or 31967.27 USD."""
    marks, deduction, rate = np.array([1335.18, 31967.27]), np.array([135365.0, 16300.0]), np.array([0.10, 0.025])
    brackets = [(np.array([0, d / r]), np.array([0, r])) for d, r in zip(deduction, rate, strict=True)]
    rules = {(0, a): Schedule(floor, r, 0.0, False, WholeStaging(kind="full")) for a, (floor, r) in enumerate(brackets)}
    account = CrossAccounts(
        venue=np.zeros(1, np.int32),
        quantity=np.array([[3683.979, 109.488]]),
        entry_price=np.array([[1456.84, 32481.98]]),
        cash=np.array([1535443.01]),
        count=np.ones(1),
        row=np.zeros(1, np.int64),
    )
    accounts = compile_accounts(account, rules, marks, 1, None)
    for cents, liquidated in ((0.005, False), (-0.005, True)):
        target = np.where(np.arange(2) == asset, price + cents, marks)
        look = Look(
            venue=jax.numpy.zeros(1, int),
            quantity=accounts.quantity[:1],
            money=accounts.equity[:1],
            move=jax.numpy.asarray(target / marks - 1)[None],
            paid=jax.numpy.zeros((1, 2)),
            owned=None,
        )
        assert bool(short_of_margin(look, jax.tree.map(jax.numpy.asarray, accounts))[0, 0]) == liquidated


STAGINGS = {
    "full": {"kind": "full"},
    "tiers": TIERWISE,
    "tiers, a pause": TIERWISE | {"pause_seconds": 90},
    "fraction": FIFTH | {"pause_seconds": 30},
    "restore": RESTORED,
}
RULES = {
    "impact": st.sampled_from([0.0, 0.003, 0.01]),
    "take_bound_bps": st.sampled_from([10, 100, 5000]),
    "auction_usd_per_hour": st.sampled_from([0, 2e6]),
    "throughput_usd_per_minute": st.sampled_from([1e6, 1e15]),
    "unwind_usd_per_minute": st.sampled_from([0, 3e5]),
    "liquidation_fee_bps": st.sampled_from([0, 50, 125]),
    "fee_in_trigger": st.booleans(),
    "surplus_to": st.sampled_from(["trader", "pool"]),
    "mark": st.sampled_from(["median", "index_average", "last", "index"]),
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
MORE = {
    "staging": st.sampled_from(list(STAGINGS)),
    "closing_order": st.sampled_from(["proportional", "riskiest_first"]),
    "coins": st.sampled_from([0.3, 0.9]),
    "inverse": st.sampled_from([(), (("one", "B"),), (("one", "B"), ("two", "A"), ("two", "B"))]),
    "capacity_usd": st.sampled_from([1.0, 1e7, 1e9]),
    "profit_bps": st.sampled_from([[-1e5, 1e5], [0, 100], [-200, 50]]),
    "off": st.sampled_from(["T", "A"]),
}


def random_case(rules: dict) -> Case:
    """Any rules, any accounts; shapes do not change."""
    capacity = ("take_bound_bps", "auction_usd_per_hour", "throughput_usd_per_minute", "unwind_usd_per_minute")
    of_venue = {key: rules[key] for key in ("liquidation_fee_bps", "fee_in_trigger", "surplus_to", "mark")}
    how = {key: rules[key] for key in ("drawdown_share", "straight_to_adl") if rules["drawdown_share"] is not None}
    how |= {"leftover": rules["leftover"]}
    return Case(
        {key: rules[key] for key in capacity} | {"tiers": TIERS},
        of_venue
        | adl(rules["ranking"], rules["close_at"], **how)
        | {"staging": STAGINGS[rules["staging"]], "pools": [pool(rules["pool_usd"], rules["takeover_multiple"])]}
        | ({"funding": FUNDING} if rules["funding"] else {}),
        impact=rules["impact"],
        path=crash if rules["crash"] else two_way,
        isolated=0,
    )


def richer_case(rules: dict) -> Case:
    """The same with coins, inverse contracts, a vault and a token off its peg."""
    case = random_case(rules)
    profit = {"profit_bps": rules["profit_bps"], "unwind_usd_per_minute": rules["unwind_usd_per_minute"]}
    off = {"kind": "depeg", "token": rules["off"], "venue": "two", "share": 0.2, "start_minutes": 20, "minutes": 30}
    pegged = {"overlays": [off]} if ("two", rules["off"]) not in rules["inverse"] else {}
    more = HAIRCUTS | vault(1e7, rules["capacity_usd"], **profit) | {"closing_order": rules["closing_order"]}
    return replace(case, venue=case.venue | more, run=pegged, coins=rules["coins"], inverse=rules["inverse"])


def random_worlds(examples: int):
    """Settings of a test that draws rules."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


def exact(case: Case, folder, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        watch_as_often(patch)
        ours, theirs = simulated(case, folder, seed)
    assert not differing(ours, theirs)


@given(st.fixed_dictionaries(RULES))
@random_worlds(12)
def test_random_worlds_are_exact(tmp_path_factory, rules):
    exact(random_case(rules), tmp_path_factory.mktemp("random"), rules["seed"])


@given(st.fixed_dictionaries(RULES | MORE))
@random_worlds(16)
def test_random_worlds_with_everything_are_exact(tmp_path_factory, rules):
    exact(richer_case(rules), tmp_path_factory.mktemp("random"), rules["seed"])
