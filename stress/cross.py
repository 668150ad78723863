"""Accounts on cross margin: several positions on one cash, and their tables for the kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from stress_kernels.accounts import Accounts
from stress_kernels.pytree import host

from stress.book import Schedule
from stress.triggers import deductions

Array = NDArray[np.float64]

BLOCK_OF_ACCOUNTS = 64
"""Accounts that are looked at together."""
PAIRS = 8
"""Blocks that are looked at together, each on a path of its own."""


@dataclass(frozen=True)
class CrossAccounts:
    """Accounts with one cash and any positions, one array element each; the others of a row's arrays are 0."""

    venue: NDArray[np.int32]
    """Index into the run's venues, shape (n)."""
    quantity: Array
    """Signed coins, shape (n, A)."""
    entry_price: Array
    """USD per coin, shape (n, A)."""
    cash: Array
    """USD, shape (n)."""
    count: Array
    """Identical copies, shape (n)."""
    row: NDArray[np.int64]
    """Row of the first position in its file, for messages."""

    def __len__(self) -> int:
        return len(self.cash)


class PastMargin(ValueError):
    """An account is at or past its trigger at the starting marks."""

    def __init__(self, account: int, equity: float, required: float) -> None:
        super().__init__(f"account {account}: equity {equity:g} USD against {required:g} USD required")
        self.account, self.equity, self.required = account, equity, required


def compile_accounts(
    cross: CrossAccounts, schedules: Mapping[tuple[int, int], Schedule], start_price: Array, venues: int, barrier: Array
) -> Accounts:
    """Lay accounts into blocks of one venue, in the order of the price move that can reach them.

    Args:
        cross: The accounts.
        schedules: Rules of every listed market, by venue and asset.
        start_price: Index price of each asset at the start [USD].
        venues: Number of venues.
        barrier: Covariance of the log moves of the trigger test, shape (A, A).

    Raises:
        PastMargin: An account would be liquidated before the first step.
    """
    assets = len(start_price)
    floor, rate = _tiers(schedules, venues, assets)
    deduction = deductions(floor, rate)
    coins = cross.quantity * start_price
    entry = np.where(cross.quantity != 0, cross.entry_price / start_price, 1.0)
    equity = cross.cash + np.sum(coins * (1 - entry), axis=1)
    first = {v: schedules[v, a] for v, a in sorted(schedules, reverse=True)}
    counted = np.array([first[v].fee * first[v].fee_in_trigger if v in first else 0.0 for v in range(venues)])
    size = np.abs(coins)
    kept = np.max(rate[cross.venue] * size[..., None] - deduction[cross.venue], axis=2)
    required = np.sum(kept, axis=1) + counted[cross.venue] * size.sum(axis=1)
    if np.any(equity <= required):
        worst = int(np.argmax(equity <= required))
        raise PastMargin(worst, float(equity[worst]), float(required[worst]))
    distance = (equity - required) / np.maximum(size.sum(axis=1), 1e-12)
    order = np.lexsort((distance, cross.venue))
    place, blocks = _blocks(cross.venue[order])
    shape = (blocks, BLOCK_OF_ACCOUNTS)

    def laid(values: Array) -> Array:
        table = np.zeros((blocks * BLOCK_OF_ACCOUNTS, *values.shape[1:]))
        table[place] = values[order]
        return np.moveaxis(table.reshape(*shape, *values.shape[1:]), 1, -1)

    venue = np.zeros(blocks, np.int32)
    venue[place // BLOCK_OF_ACCOUNTS] = cross.venue[order]
    return Accounts(
        venue=host(venue),
        quantity=host(laid(coins)),
        entry=host(laid(entry - 1)),
        equity=host(laid(equity)),
        count=host(laid(cross.count)),
        floor=host(floor),
        rate=host(rate),
        deduction=host(deduction),
        counted_fee=host(counted),
        staged=host([v in first and first[v].staged for v in range(venues)], bool),
        down=host([first[v].down if v in first else 1 for v in range(venues)], np.int32),
        whole_below=host([first[v].whole_below if v in first else 1 for v in range(venues)], np.int32),
        barrier=host(barrier),
        pairs=PAIRS,
    )


def _tiers(schedules: Mapping[tuple[int, int], Schedule], venues: int, assets: int) -> tuple[Array, Array]:
    """Floors (padded with infinity) and rates (padded with the last), shape (v a tier)."""
    most = max(len(schedule.floor) for schedule in schedules.values())
    floor, rate = np.full((venues, assets, most), np.inf), np.zeros((venues, assets, most))
    for (v, a), schedule in schedules.items():
        tiers = len(schedule.floor)
        floor[v, a, :tiers], rate[v, a, :tiers], rate[v, a, tiers:] = schedule.floor, schedule.rate, schedule.rate[-1]
    return floor, rate


def _blocks(venue: NDArray[np.int32]) -> tuple[NDArray[np.int64], int]:
    """Place of each account, sorted by venue, such that no block holds two venues; and the number of blocks."""
    _, starts, sizes = np.unique(venue, return_index=True, return_counts=True)
    blocks = -(-sizes // BLOCK_OF_ACCOUNTS)
    first = np.concatenate([[0], np.cumsum(blocks)])[:-1] * BLOCK_OF_ACCOUNTS
    within = np.arange(len(venue)) - np.repeat(starts, sizes)
    return np.repeat(first, sizes) + within, int(blocks.sum())
