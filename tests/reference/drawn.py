"""Small random worlds of one shape, and the engine run through them with every step in sight.

Two venues, three assets, three pools, a vault at the second venue, half an hour in steps of a minute. Nearly all rules
are drawn; what the compiled program depends on is not: sizes, and whether there are vaults, transfers, coins, pauses.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from stress_kernels import simulate as kernel
from stress_kernels.behaviour import Mood
from stress_kernels.ledger import ledger_residual
from stress_kernels.rows import template, unpack
from stress_kernels.step import step

from stress.build import Built, build
from stress.config import Run

from .small import market, pool, run_of, venue

VENUES, ASSETS = ("one", "two"), ("A", "B", "T")
MARKETS = ("A", "B")
"""Assets with perpetuals; T is a token alone."""
STEPS, PATHS = 30, 4
START = 100.0
TIERS = [{"floor_usd": 0, "rate": 0.005}, {"floor_usd": 5e5, "rate": 0.01}, {"floor_usd": 2e6, "rate": 0.025}]
STAGINGS = {
    "full": {"kind": "full"},
    "tiers": {"kind": "tiers", "down": 1, "whole_below": 1},
    "tiers, a pause": {"kind": "tiers", "down": 2, "whole_below": 1, "pause_seconds": 90},
    "fraction": {"kind": "fraction", "share": 0.2, "above_usd": 1e6, "pause_seconds": 30},
    "restore": {"kind": "restore", "target": 1.5},
}
RULES: dict[str, st.SearchStrategy[Any]] = {
    "seed": st.integers(0, 2**16),
    "i_ref": st.sampled_from([0.0, 0.003, 0.01]),
    "take_bound_bps": st.sampled_from([10, 100, 5000]),
    "auction_usd_per_hour": st.sampled_from([0, 2e6]),
    "throughput_usd_per_minute": st.sampled_from([3e6, 1e15]),
    "unwind_usd_per_minute": st.sampled_from([0, 3e5]),
    "liquidation_fee_bps": st.sampled_from([0, 50, 125]),
    "fee_in_trigger": st.booleans(),
    "surplus_to": st.sampled_from(["trader", "pool"]),
    "mark": st.sampled_from(["median", "index_average", "last", "index"]),
    "staging": st.sampled_from([name for name in STAGINGS if name != "restore"]),
    "staging_two": st.sampled_from(list(STAGINGS)),
    "closing_order": st.sampled_from(["proportional", "riskiest_first"]),
    "ranking": st.sampled_from(["queue", "pro_rata", "water_filling"]),
    "close_at": st.sampled_from(["bankruptcy", "mark", "index"]),
    "drawdown_share": st.sampled_from([None, 0.3]),
    "straight_to_adl": st.booleans(),
    "leftover": st.booleans(),
    "pool_usd": st.sampled_from([0.0, 1e5, 4e6, 1e9]),
    "takeover_multiple": st.sampled_from([0, 3]),
    "floor_usd": st.sampled_from([0.0, 3e6]),
    "capacity_usd": st.sampled_from([1.0, 1e7, 1e9]),
    "profit_bps": st.sampled_from([None, [0, 100], [-200, 50]]),
    "entry_ratio": st.sampled_from([0.3, 1.0]),
    "funding": st.booleans(),
    "coins": st.sampled_from([0.1, 0.9]),
    "inverse": st.sampled_from(["", "A", "B", "AB"]),
    "off_peg": st.sampled_from([1e-6, 0.2]),
    "way": st.sampled_from(["crash", "rally", "two ways", "one jump"]),
}
"""What is drawn of a world."""
CALM: dict[str, Any] = {
    "seed": 0, "i_ref": 0.0, "take_bound_bps": 5000, "auction_usd_per_hour": 0, "throughput_usd_per_minute": 1e15,
    "unwind_usd_per_minute": 0, "liquidation_fee_bps": 0, "fee_in_trigger": False, "surplus_to": "pool",
    "mark": "median", "staging": "full", "staging_two": "full", "closing_order": "proportional", "ranking": "queue",
    "close_at": "bankruptcy", "drawdown_share": None, "straight_to_adl": False, "leftover": True, "pool_usd": 1e12,
    "takeover_multiple": 0, "floor_usd": 0.0, "capacity_usd": 1.0, "profit_bps": None, "entry_ratio": 0.3,
    "funding": False, "coins": 0.9, "inverse": "B", "off_peg": 1e-6, "way": "crash",
}  # fmt: skip
"""A world in which no account changes what becomes of another: no impact, no bound of the book, pools without end."""


def rules(**changes: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Rules of a world, all drawn but for these: values, or strategies of their own."""
    own = {name: x if isinstance(x, st.SearchStrategy) else st.just(x) for name, x in changes.items()}
    return st.fixed_dictionaries(RULES | own)


def examples(most: int):
    """Settings of a test that draws so many worlds, always the same ones."""
    quiet = [HealthCheck.function_scoped_fixture]
    return settings(
        max_examples=most, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=quiet
    )


@dataclass(frozen=True)
class Crowd:
    """Who is in a world: accounts on cross margin, and isolated positions at the first venue."""

    venue: np.ndarray
    quantity: np.ndarray
    """Signed coins, whatever the contract, (n, market)."""
    entry: np.ndarray
    """[USD]"""
    usd: np.ndarray
    """Cash [USD]."""
    coins: np.ndarray
    """Of each asset, as collateral, (n, asset)."""
    count: np.ndarray
    isolated: list[tuple[int, float, float, float, int]]
    """Market, signed coins, entry price, margin, copies."""

    def copied(self) -> Crowd:
        """Every account as often as it counts."""
        again = np.repeat(np.arange(len(self.count)), self.count)
        return Crowd(
            *(x[again] for x in (self.venue, self.quantity, self.entry, self.usd, self.coins)),
            count=np.ones(len(again), int),
            isolated=[(*row[:4], 1) for row in self.isolated for _ in range(row[4])],
        )


def dust(price: float) -> list[tuple[int, float, float, float, int]]:
    """Tiny shorts of A with almost the same trigger, which make the look-up on ladders equally wide in all worlds."""
    return [(0, -0.1 / price, price, 0.05 + 1e-10 * i, 1) for i in range(12)]


def crowd(
    seed: int, coins: float, each: int = 20, leverage: tuple[float, float] = (3, 25), spread: float = 0.02
) -> Crowd:
    """Accounts of a million USD a position in the median, one in four with one position, 1 to 3 copies.

    Args:
        seed: Of sizes and leverages.
        coins: Share of what backs an account that is in coins of all assets.
        each: Accounts of a venue on cross margin.
        leverage: Range of notional over equity at the start.
        spread: Standard deviation of entry prices [log].
    """
    rng, n = np.random.default_rng(seed), 2 * each
    held = rng.random((n, 2)) < [1, 0.75]
    quantity = rng.choice([-1.0, 1.0], (n, 2)) * rng.lognormal(0, 1, (n, 2)) * 1e4 * held
    entry = START * np.exp(rng.normal(0, spread, (n, 2)))
    backing = np.abs(quantity).sum(axis=1) * START / rng.uniform(*leverage, n)
    alone = []
    for a, sign in ((0, 1.0), (0, -1.0), (1, 1.0), (1, -1.0)):
        for _ in range(3):
            size, price = sign * rng.lognormal(0, 1) * 1e4, START * np.exp(rng.normal(0, spread))
            margin = abs(size) * START / rng.uniform(*leverage) - size * (START - price)
            alone.append((a, size, price, margin, int(rng.integers(1, 4))))
    return Crowd(
        venue=np.repeat([0, 1], each),
        quantity=quantity,
        entry=entry,
        usd=(1 - coins) * backing - np.sum(quantity * (START - entry), axis=1),
        coins=coins * backing[:, None] / START * rng.dirichlet([1, 1, 1], n),
        count=rng.integers(1, 4, n),
        isolated=alone + dust(START),
    )


def write(folder: Path, people: Crowd, inverse: str) -> dict[str, str]:
    """Files of positions and collateral, as a user would write them."""
    held: list[dict[str, Any]] = []
    for i, (v, quantity, entry, count) in enumerate(
        zip(people.venue, people.quantity, people.entry, people.count, strict=True)
    ):
        for a, q, price in zip(MARKETS, quantity, entry, strict=True):
            contracts = q * price if v == 1 and a in inverse else q
            row = {"venue": VENUES[v], "account": f"{i}", "asset": a, "quantity": contracts, "entry_price": price}
            held += [row | {"margin": None, "mode": "cross", "count": int(count)}] if q else []
    for i, (a, q, price, margin, count) in enumerate(people.isolated):
        row = {"venue": "one", "account": f"alone {i}", "asset": MARKETS[a], "quantity": q, "entry_price": price}
        held.append(row | {"margin": margin, "mode": "isolated", "count": count})
    posted = [
        {"venue": VENUES[v], "account": f"{i}", "token": token, "amount": float(amount)}
        for i, (v, usd, coins) in enumerate(zip(people.venue, people.usd, people.coins, strict=True))
        for token, amount in zip(("USD", *ASSETS), (usd, *coins), strict=True)
    ]
    files = {"positions": folder / "positions.parquet", "collateral": folder / "collateral.parquet"}
    pq.write_table(pa.Table.from_pylist(held), files["positions"])
    pq.write_table(pa.Table.from_pylist(posted), files["collateral"])
    return {name: str(file) for name, file in files.items()}


def configured(drawn: dict[str, Any], files: dict[str, str], **more: Any) -> Run:
    """The run of a world."""
    of_market = ("take_bound_bps", "auction_usd_per_hour", "throughput_usd_per_minute", "unwind_usd_per_minute")
    of_venue = ("liquidation_fee_bps", "fee_in_trigger", "surplus_to", "mark", "closing_order")
    haircuts = {"haircuts": {"A": 0.05, "B": 0.1, "T": 0.2} | drawn.get("haircuts", {})}
    adl = {"ranking": drawn["ranking"], "close_at": drawn["close_at"], "drawdown_window_hours": 8}
    adl |= {"leftover": drawn["leftover"]}
    if drawn["drawdown_share"] is not None:
        adl |= {"drawdown_share": drawn["drawdown_share"], "straight_to_adl": drawn["straight_to_adl"]}
    rate = drawn.get("maintenance", 1.0)
    place = {"tiers": [tier | {"rate": tier["rate"] * rate} for tier in TIERS]} | {key: drawn[key] for key in of_market}
    rule = {key: drawn[key] for key in of_venue} | haircuts | {"adl": adl}
    if drawn["funding"]:
        rule["funding"] = {"interval_hours": 1 / 12, "interest": 1e-3, "clamp": 5e-3, "cap": 2e-2, "source": "made up"}
    usd, multiple = drawn["pool_usd"], drawn["takeover_multiple"]
    second = [
        pool(usd / 2, multiple, name="A", markets=["A"], topped_up_by="B", floor_usd=drawn["floor_usd"]),
        pool(usd, multiple, name="B", markets=["B"]),
    ]
    backstop = {
        "equity_usd": 1e7, "capacity_usd": drawn["capacity_usd"], "profit_bps": drawn["profit_bps"],
        "entry_ratio": drawn["entry_ratio"], "unwind_usd_per_minute": drawn["unwind_usd_per_minute"],
        "source": "made up",
    }  # fmt: skip
    contracts = {a: place | {"contract": "inverse" if a in drawn["inverse"] else "linear"} for a in MARKETS}
    one = rule | {"pools": [pool(usd, multiple)], "staging": STAGINGS[drawn["staging"]]}
    two = rule | {"pools": second, "vault": backstop, "staging": STAGINGS[drawn["staging_two"]]}
    venues = [
        venue("one", {a: market(**place) for a in MARKETS}, **one),
        venue("two", {a: market(**contracts[a]) for a in MARKETS}, **two),
    ]
    off = {"kind": "depeg", "token": "T", "venue": "two", "share": drawn["off_peg"], "start_minutes": 5, "minutes": 10}
    assets = {"A": {"daily_volatility": 0.025}, "B": {"daily_volatility": 0.03}}
    assets |= {"T": {"daily_volatility": 0.01, "spot_adv_usd": 1e8}}
    impact = {"i_ref": drawn["i_ref"], "depth": drawn.get("depth", True)}
    run = {"horizon_hours": 1, "impact": impact, "portfolio": files, "overlays": [off], "step_seconds": 120}
    return run_of(venues, assets, None, **run | more)


def log_indices(way: str, seed: int) -> np.ndarray:
    """Log indices without impact after each step [step, asset, path]; the token moves a tenth of A."""
    rng = np.random.default_rng(seed + 1)
    steps: np.ndarray = np.zeros((STEPS, PATHS))
    size = rng.uniform(0.6, 1.3, PATHS)
    jumps = {
        "crash": {4: -0.06, 5: -0.08, 14: -0.12, 20: -0.05},
        "rally": {4: 0.06, 5: 0.08, 14: 0.12, 20: 0.05},
        "two ways": {3: -0.1, 8: 0.12, 13: 0.1, 19: -0.25, 24: 0.1},
        "one jump": {4: float(rng.choice([-0.2, -0.1, 0.15]))},
    }[way]
    for at, move in jumps.items():
        steps[at] = move * size
    noise = 0.0 if way == "one jump" else 1e-3
    each = steps[:, None] * np.array([1.0, 1.2])[:, None] + rng.normal(0, noise, (STEPS, 2, PATHS))
    path = np.cumsum(each, axis=0)
    return np.concatenate([path, 0.1 * path[:, :1]], axis=1)


def total(stock: Any) -> np.ndarray:
    """A compensated sum of NumPy as one number."""
    return stock.high + stock.low


class Seen(NamedTuple):
    """A run after each of its steps: what the kernels carry, as arrays of NumPy with the steps first."""

    state: Any
    """`State`"""
    record: Any
    """`Record`"""
    holdings: Any
    """`Holdings`"""
    residual: Any
    """Of the ledger."""


@dataclass(frozen=True)
class World:
    """A built world, and the accounts in it that are on no ladder."""

    built: Built
    accounts: Any
    """`Accounts` of NumPy."""

    @property
    def rules(self) -> Any:
        """`World` of NumPy."""
        return self.built.world

    @classmethod
    def of(cls, drawn: dict[str, Any], people: Crowd, folder: Path, **more: Any) -> World:
        """Write, read and build it."""
        run = configured(drawn, write(folder, people, drawn["inverse"]), **more)
        built = build(run, single_on_ladders=False)
        accounts, transfers = built.accounts, built.world.transfers
        assert accounts is not None and transfers is not None
        if drawn["floor_usd"] == 0:
            nobody = replace(transfers, source=np.full(3, -1, np.int32))
            built = replace(built, world=replace(built.world, transfers=nobody))
        return cls(built, replace(accounts, memory=True))

    def walk(self, path: np.ndarray) -> Seen:
        """All steps of an hour."""
        dtype = self.built.world.sigma.dtype
        with jax.enable_x64(dtype == np.float64):
            given = jax.tree.map(jnp.asarray, (self.built.ladders, self.built.world, self.accounts))
            return Seen(*jax.device_get(_compiled()(path.astype(dtype), *given)))

    @property
    def there(self) -> np.ndarray:
        """Whether a place in a block is an account, (k 1 b)."""
        return self.accounts.count[:, None] > 0

    @property
    def notional(self) -> np.ndarray:
        """Of one copy of every account at the start [USD], at least 1, (k 1 b)."""
        return np.maximum(np.abs(self.accounts.quantity).sum(axis=1), 1.0)[:, None]

    def equity(self, held: Any, mark: np.ndarray, spot: np.ndarray) -> np.ndarray:
        """Of one copy of every account [USD], (step k p b).

        Args:
            held: What they hold after each step.
            mark: Over the start's, (step v a p).
            spot: The same of coins.
        """
        inverse = self.rules.inverse[..., None]
        gain, money = np.where(inverse, 1 - 1 / mark, mark - 1) - held.paid, np.where(inverse, mark, 1.0)
        of_positions = held.quantity * self.of_accounts(gain * money)
        of_coins = held.coins * self.of_accounts(np.where(inverse, mark, spot))
        return held.money + np.sum(of_positions + of_coins, axis=-2)

    def of_accounts(self, of_markets: np.ndarray) -> np.ndarray:
        """Of numbers by market, (step v a p), those of each account's venue, (step k p a 1)."""
        return np.moveaxis(of_markets[:, self.accounts.venue], -1, 2)[..., None]


def walked(drawn: dict[str, Any], folder: Path, people: Crowd | None = None, **more: Any) -> tuple[World, Seen]:
    """A world, and a run through it."""
    people = crowd(drawn["seed"], drawn["coins"]) if people is None else people
    world = World.of(drawn, people, folder, **more)
    return world, world.walk(log_indices(drawn["way"], drawn["seed"]))


@functools.cache
def _compiled():
    def walk(exogenous, ladders, world, accounts):
        carry, kept = kernel.open_carry(ladders, world, accounts, exogenous.shape[1], exogenous.shape[2])
        like = template(kept)

        def one(now, xs):
            log_index, depth = xs
            now = step(now, log_index, depth, like, ladders, world, accounts)
            record = unpack(now.record, like)
            return now, (now.state, record, now.holdings, ledger_residual(record.stocks, now.state.funds, world))

        first = kernel._new_hour(carry, like, world)
        return jax.lax.scan(one, first, (exogenous, kernel.depth_of_steps(exogenous, Mood(), world)))[1]

    return jax.jit(walk)
