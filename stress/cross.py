"""Accounts on cross margin: several positions on one cash, and their tables for the kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stress_kernels.account_words import WORD, Words
from stress_kernels.accounts import Accounts, Collateral, Losses, open_holdings
from stress_kernels.pytree import host

from stress.closings import Schedule
from stress.config import Run
from stress.overlays import Default
from stress.portfolio import Positions
from stress.spec import BLOCK
from stress.triggers import deductions
from stress.venues import FractionStaging, RestoreStaging, TierStaging

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

BLOCK_OF_ACCOUNTS = 64
"""Accounts that are looked at together."""
APART_FROM = 64 * BLOCK_OF_ACCOUNTS
"""Accounts of a venue from which longs, shorts and those with both have blocks of their own."""
PAIRS = 8
"""Blocks that are looked at together, each on a path of its own."""
_EITHER = 2
"""Kind of a block with longs and shorts, after those with longs alone and those with shorts alone."""
STATE_BYTES = 2**30
"""What the state of all accounts may take on one device [bytes]."""
FEWEST_PATHS = 16
"""Paths that are simulated together however many accounts there are."""


@dataclass(frozen=True)
class CrossAccounts:
    """Accounts with one margin and any positions, one array element each; the others of a row's arrays are 0."""

    venue: NDArray[np.int32]
    """Index into the run's venues, shape (n)."""
    quantity: Array
    """Signed coins, or USD of inverse contracts, shape (n, A)."""
    entry_price: Array
    """USD per coin, shape (n, A)."""
    cash: Array
    """USD, shape (n)."""
    count: Array
    """Identical copies, shape (n)."""
    row: NDArray[np.int64]
    """Row of the first position in its file, counted from 0, for messages."""
    coins: Array | None = None
    """Coins of each asset posted as collateral, shape (n, A); none where absent."""

    def __len__(self) -> int:
        return len(self.cash)

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> CrossAccounts:
        """Some of the accounts, or those at these places, in the order given."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        given: dict[str, Any] = {name: x[chosen] for name, x in columns.items() if x is not None}
        return CrossAccounts(**given)


def joined(*parts: CrossAccounts) -> CrossAccounts:
    """All of several."""
    coins = [np.zeros_like(part.quantity) if part.coins is None else part.coins for part in parts]
    columns: dict[str, Any] = {
        field.name: [getattr(part, field.name) for part in parts] for field in fields(CrossAccounts)
    }
    all_of: dict[str, Any] = {name: np.concatenate(x) for name, x in (columns | {"coins": coins}).items()}
    return CrossAccounts(**all_of)


def defaulting(run: Run, start_price: Array) -> CrossAccounts | None:
    """Accounts that overlays add, in their order; row -1 - i is that of `overlays[i]`. None without any."""
    venues, assets = list(run.venues), list(run.assets)
    mine = [(i, overlay) for i, overlay in enumerate(run.overlays) if isinstance(overlay, Default)]
    if not mine:
        return None
    usd = np.array([[overlay.positions.get(asset, 0.0) for asset in assets] for _, overlay in mine])
    return CrossAccounts(
        venue=np.array([venues.index(overlay.venue) for _, overlay in mine], np.int32),
        quantity=usd / start_price,
        entry_price=np.where(usd != 0, start_price, 0.0),
        cash=np.array([overlay.equity_usd for _, overlay in mine]),
        count=np.ones(len(mine)),
        row=np.array([-1 - i for i, _ in mine]),
    )


def losses_of(run: Run, cross: CrossAccounts) -> dict[int, tuple[int, float]]:
    """What accounts lose elsewhere: step and USD, by their number."""
    found = {}
    for number in np.flatnonzero(cross.row < 0):
        overlay = run.overlays[-1 - cross.row[number]]
        assert isinstance(overlay, Default)
        found[int(number)] = (int(overlay.start_minutes * 60 // run.step_seconds), overlay.loss_usd)
    return found


def one_by_one(positions: Positions, row: NDArray[np.int64], assets: int) -> CrossAccounts:
    """Isolated positions as accounts of their own.

    Args:
        positions: On isolated margin.
        row: Of each in its file, counted from 0.
        assets: Number of assets.
    """
    size = len(positions)
    quantity, entry = np.zeros((2, size, assets))
    place = np.arange(size), positions.asset
    quantity[place], entry[place] = positions.quantity, positions.entry_price
    return CrossAccounts(positions.venue, quantity, entry, positions.margin, positions.count, row)


@dataclass(frozen=True)
class Currencies:
    """Which coins are money, where any are."""

    haircut: Array
    """What a coin of each asset counts less in the trigger at each venue [1], shape (V, A)."""
    inverse: NDArray[np.bool_]
    """Markets whose contracts are settled in coins, shape (V, A)."""


class PastMargin(ValueError):
    """An account is at or past its trigger at the starting marks."""

    def __init__(self, account: int, equity: float, required: float) -> None:
        super().__init__(f"account {account}: equity {equity:g} USD against {required:g} USD required")
        self.account, self.equity, self.required = account, equity, required


def compile_accounts(
    cross: CrossAccounts,
    schedules: Mapping[tuple[int, int], Schedule],
    start_price: Array,
    venues: int,
    barrier: Array | None,
    dtype: str = "float64",
    currencies: Currencies | None = None,
    volatility: Array | None = None,
    losses: Mapping[int, tuple[int, float]] | None = None,
) -> Accounts:
    """Lay accounts into blocks of one venue, in the order of the price move that can reach them; many by direction too.

    Args:
        cross: The accounts.
        schedules: Rules of every listed market, by venue and asset.
        start_price: Index price of each asset at the start [USD].
        venues: Number of venues.
        barrier: Covariance of the log moves of the trigger test, shape (A, A); None where triggers are not moved.
        dtype: Of the tables.
        currencies: Coins that are money; needed where an account has any, or an inverse contract.
        volatility: Of each asset, in any unit; how far each price is expected to move against the others. It decides
            how seldom accounts are looked at, not what is found.
        losses: What accounts lose elsewhere: step and USD, by their number.

    Raises:
        PastMargin: An account would be liquidated before the first step.
    """
    assets = len(start_price)
    floor, rate = _tiers(schedules, venues, assets)
    deduction = deductions(floor, rate)
    inverse = np.zeros(cross.quantity.shape, bool) if currencies is None else currencies.inverse[cross.venue]
    contracts = cross.quantity * np.where(inverse, 1.0, start_price)
    entry = np.where(cross.quantity != 0, cross.entry_price / start_price, 1.0)
    equity = cross.cash + np.sum(np.where(inverse, 0.0, contracts * (1 - entry)), axis=1)
    coins = np.zeros_like(contracts) if cross.coins is None else cross.coins * start_price
    owned = coins + np.where(inverse, contracts * (1 / entry - 1), 0.0)
    haircut = 0.0 if currencies is None else currencies.haircut[cross.venue]
    weighted = equity + np.sum(owned - haircut * coins, axis=1)
    first = {v: schedules[v, a] for v, a in sorted(schedules, reverse=True)}
    counted = np.array([first[v].fee * first[v].fee_in_trigger if v in first else 0.0 for v in range(venues)])
    size = np.abs(contracts)
    kept = np.max(rate[cross.venue] * size[..., None] - deduction[cross.venue], axis=2)
    required = np.sum(kept, axis=1) + counted[cross.venue] * size.sum(axis=1)
    if np.any(weighted <= required):
        worst = int(np.argmax(weighted <= required))
        raise PastMargin(worst, float(weighted[worst]), float(required[worst]))
    pace = _pace(volatility, assets)
    distance = (weighted - required) / np.maximum(size @ pace, 1e-12)
    long, short = np.any(contracts > 0, axis=1), np.any(contracts < 0, axis=1)
    many = np.bincount(cross.venue, minlength=venues)[cross.venue] >= APART_FROM
    kind = 3 * cross.venue + np.where(many & ~(long & short), short, _EITHER)
    order = np.lexsort((distance, kind))
    place, blocks = _blocks(kind[order])
    shape = (blocks, BLOCK_OF_ACCOUNTS)

    def laid(values: Array) -> Any:
        table = np.zeros((blocks * BLOCK_OF_ACCOUNTS, *values.shape[1:]), dtype)
        table[place] = values[order]
        return host(np.moveaxis(table.reshape(*shape, *values.shape[1:]), 1, -1))

    def of_venue(pick: Callable[[Schedule], Any], missing: Any, kind: Any = None) -> Any:
        return host([pick(first[v]) if v in first else missing for v in range(venues)], kind)

    def of_rule(kind: type, name: str, missing: Any, dtype: Any = None) -> Any:
        return of_venue(lambda s: getattr(s.staging, name) if isinstance(s.staging, kind) else missing, missing, dtype)

    kind_of_block = np.zeros(blocks, np.int32)
    kind_of_block[place // BLOCK_OF_ACCOUNTS] = kind[order]
    venue = kind_of_block // 3
    falls, rises = _against(laid(contracts), laid(owned), None if currencies is None else currencies.inverse[venue])
    over_pace = np.tile(1 / pace, 1 if currencies is None else 2)[:, None]
    words = _words(kind_of_block, falls * over_pace, rises * over_pace, dtype)
    return Accounts(
        venue=host(venue),
        quantity=laid(contracts),
        entry=laid(entry - 1),
        equity=laid(equity),
        collateral=None
        if currencies is None
        else Collateral(laid(owned), host(currencies.haircut, dtype), host(currencies.inverse)),
        count=laid(cross.count),
        floor=host(floor, dtype),
        rate=host(rate, dtype),
        deduction=host(deduction, dtype),
        counted_fee=host(counted, dtype),
        staged=of_venue(lambda s: isinstance(s.staging, TierStaging), False),
        down=of_rule(TierStaging, "down", 1, np.int32),
        whole_below=of_rule(TierStaging, "whole_below", 1, np.int32),
        riskiest_first=of_venue(lambda s: s.riskiest_first, False),
        share=of_rule(FractionStaging, "share", 1.0, dtype),
        share_above=of_rule(FractionStaging, "above_usd", np.inf, dtype),
        target=of_rule(RestoreStaging, "target", 0.0, dtype),
        pause=of_venue(lambda s: s.pause_steps, 0, np.int32),
        barrier=None if barrier is None else host(barrier, dtype),
        pace=host(pace, dtype),
        words=words,
        losses=_losses(losses, order, place, dtype) if losses else None,
        pairs=PAIRS,
        memory=any(s.pause_steps > 0 or isinstance(s.staging, FractionStaging) for s in first.values()),
    )


def _losses(
    losses: Mapping[int, tuple[int, float]], order: NDArray[np.int64], place: NDArray[np.int64], dtype: str
) -> Losses:
    """What accounts lose, by where they lie."""
    of_account = np.empty_like(place)
    of_account[order] = place
    there, (step, usd) = of_account[list(losses)], zip(*losses.values(), strict=True)
    return Losses(
        block=host(there // BLOCK_OF_ACCOUNTS, np.int32),
        member=host(there % BLOCK_OF_ACCOUNTS, np.int32),
        step=host(step, np.int32),
        usd=host(usd, dtype),
    )


def _tiers(schedules: Mapping[tuple[int, int], Schedule], venues: int, assets: int) -> tuple[Array, Array]:
    """Floors (padded with infinity) and rates (padded with the last), shape (v a tier)."""
    most = max(len(schedule.floor) for schedule in schedules.values())
    floor, rate = np.full((venues, assets, most), np.inf), np.zeros((venues, assets, most))
    for (v, a), schedule in schedules.items():
        tiers = len(schedule.floor)
        floor[v, a, :tiers], rate[v, a, :tiers], rate[v, a, tiers:] = schedule.floor, schedule.rate, schedule.rate[-1]
    return floor, rate


def _pace(volatility: Array | None, assets: int) -> Array:
    """How far each price is expected to move against the one that moves most, at least a tenth."""
    if volatility is None or not np.any(volatility > 0):
        return np.ones(assets)
    return np.maximum(volatility / np.max(volatility), 0.1)


def _against(contracts: Array, owned: Array, inverse: Bools | None) -> tuple[Bools, Bools]:
    """Prices whose falls, and whose rises, are against anybody in a block, shape (x, blocks).

    Of linear contracts the mark, by their sign; where coins are money either way, in the mark of an inverse contract
    and in the spot price of other coins.
    """
    long, short = np.any(contracts > 0, axis=2).T, np.any(contracts < 0, axis=2).T
    if inverse is None:
        return long, short
    coins = np.any(owned != 0, axis=2).T
    either, spot = inverse.T & (long | short | coins), ~inverse.T & coins
    return np.concatenate([long | either, spot]), np.concatenate([short | either, spot])


def _words(kind: NDArray[np.int32], falls: Array, rises: Array, dtype: str) -> Words:
    """Blocks of one kind that lie side by side, up to 32 a word.

    Args:
        kind: Of each block.
        falls: 1 / pace of prices whose fall is against anybody in a block, else 0, shape (x, blocks).
        rises: The same of rises.
        dtype: Of the tables.
    """
    _, starts = np.unique(kind, return_index=True)
    ends = np.append(starts[1:], len(kind))
    first = np.concatenate([np.arange(*each, WORD) for each in zip(starts, ends, strict=True)])
    of = np.searchsorted(first, np.arange(len(kind)), side="right") - 1

    def by_word(table: Array) -> Array:
        words = np.zeros((len(first), len(table), WORD))
        words[of, :, np.arange(len(kind)) - first[of]] = table.T
        return words

    falls, rises = by_word(falls), by_word(rises)
    return Words(
        venue=host(kind[first] // 3),
        first=host(first, np.int32),
        of=host(of, np.int32),
        falls=host(falls, dtype),
        rises=host(rises, dtype),
        any_falls=host(falls.max(axis=2), dtype),
        any_rises=host(rises.max(axis=2), dtype),
    )


def _blocks(kind: NDArray[np.int32]) -> tuple[NDArray[np.int64], int]:
    """Place of each account, sorted by kind, such that no block holds two kinds; and the number of blocks."""
    _, starts, sizes = np.unique(kind, return_index=True, return_counts=True)
    blocks = -(-sizes // BLOCK_OF_ACCOUNTS)
    first = np.concatenate([[0], np.cumsum(blocks)])[:-1] * BLOCK_OF_ACCOUNTS
    within = np.arange(len(kind)) - np.repeat(starts, sizes)
    return np.repeat(first, sizes) + within, int(blocks.sum())


def coins_held(accounts: Accounts) -> Array:
    """Contracts of all accounts at the start, longs and shorts, both positive, shape (v a s); worth 1 USD each."""
    held = np.asarray(accounts.quantity, np.float64) * np.asarray(accounts.count, np.float64)[:, None]
    sides = np.stack([np.maximum(held, 0).sum(axis=-1), np.maximum(-held, 0).sum(axis=-1)], axis=-1)
    venues, assets, _ = accounts.rate.shape
    table = np.zeros((venues, assets, 2))
    np.add.at(table, np.asarray(accounts.venue), sides)
    return table


def paths_together(accounts: Accounts | None) -> int:
    """Paths that one device simulates together, so that the state of their accounts stays below `STATE_BYTES`.

    A power of two from `FEWEST_PATHS` to `BLOCK`, by the number of accounts and assets and the dtype alone: neither the
    number of paths nor of devices changes it, so that it never changes a path.
    """
    if accounts is None:
        return BLOCK
    import jax

    def shape(x: Any) -> jax.ShapeDtypeStruct:
        # Sizes alone count here: of 64 bits JAX would warn where it does not use them yet.
        return jax.ShapeDtypeStruct(x.shape, np.float32 if x.dtype.kind == "f" else x.dtype)

    of_one_path = jax.eval_shape(lambda given: open_holdings(given, 1), jax.tree.map(shape, accounts))
    numbers = sum(leaf.size for leaf in jax.tree.leaves(of_one_path))
    most = STATE_BYTES // (numbers * accounts.equity.dtype.itemsize)
    return min(BLOCK, max(FEWEST_PATHS, 1 << (most.bit_length() - 1) if most else 0))
