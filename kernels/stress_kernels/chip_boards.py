"""What the kernel on the chip writes: boards between its threads, and its report. Axes as in `chip_tables.py`."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stress_kernels.chip_tables import Place, Sizes, Tables
from stress_kernels.pytree import pytree


@pytree
class Boards:
    """What the threads of a block tell each other, and what they cannot keep in registers."""

    ring: Place
    """Past bases, (window v a p) [log]."""
    orders: Place
    """Where anything is swept, one after the other: row of a board x paths of a block + path."""
    mark: Place
    """(row p), with a row for each market (v a)."""
    u_local: Place
    shift: Place
    index: Place
    """(a p)"""
    u_global: Place
    depth: Place
    low: Place
    """Places on ladders between which a side is swept, (row p) with a row for each side (v s a)."""
    high: Place
    usd: Place
    """What was closed there [USD], and so on; the last row is for threads without an order."""
    received: Place
    deficit: Place
    quantity: Place
    proceeds: Place
    accounts: Place
    beyond: Place
    """1 where the book does not take the whole order."""


@pytree
class Report:
    """What the kernel says of every hour (hour ... row p), and of the whole time."""

    volume: Place
    """By side [USD]."""
    first_round: Place
    """By market [USD]."""
    accounts: Place
    """By venue."""
    deficit: Place
    """By pool [USD]."""
    surplus: Place
    traders: Place
    """By side at the end of the hour, as all stocks; high and low parts of sums, (hour 2 row p)."""
    rest: Place
    """By market."""
    traders_cash: Place
    """By venue."""
    rest_cash: Place
    gross: Place
    """Of cash and of coins, (hour 2 p)."""
    cash: Place
    """Of pools, (hour 2 f p)."""
    fund_low: Place
    index: Place
    mark: Place
    index_low: Place
    index_high: Place
    basis_low: Place
    basis_high: Place
    drawdown: Place
    """(f p)"""
    unknown: Place
    """1 where a path has met something that the kernel does not do, (1 p)."""


class Memories(NamedTuple):
    """References to everything that is not in registers."""

    tables: Tables
    boards: Boards
    report: Report
    lanes: Any
    """All paths of the block, the last of the axes of what is read or written."""


def boards_of(sizes: Sizes, paths: int, dtype: Any) -> Boards:
    """Shapes of the boards of all blocks."""

    def of(*shape: int) -> Any:
        return jax.ShapeDtypeStruct((*shape, paths), dtype)

    markets, assets = of(sizes.venues * sizes.width), of(sizes.width)
    sides, answers = of(sizes.rows), of(sizes.rows + 1)
    return Boards(
        ring=of(sizes.window, sizes.venues, sizes.width),
        orders=jax.ShapeDtypeStruct(((sizes.rows + sizes.width) * paths,), jnp.int32),
        mark=markets, u_local=markets, shift=markets,
        index=assets, u_global=assets, depth=assets,
        low=sides, high=sides,
        usd=answers, received=answers, deficit=answers, quantity=answers, proceeds=answers, accounts=answers,
        beyond=answers,
    )  # fmt: skip


def report_of(sizes: Sizes, paths: int, dtype: Any) -> Report:
    """Shapes of the report of all paths."""

    def hourly(*shape: int) -> Any:
        return jax.ShapeDtypeStruct((sizes.hours, *shape, paths), dtype)

    venues, assets, pools = hourly(sizes.venues), hourly(sizes.width), hourly(sizes.pools)
    markets, cash = hourly(sizes.venues * sizes.width), hourly(2, sizes.venues)
    return Report(
        volume=hourly(sizes.rows), first_round=markets, accounts=venues, deficit=pools, surplus=pools,
        traders=hourly(2, sizes.rows), rest=hourly(2, sizes.venues * sizes.width),
        traders_cash=cash, rest_cash=cash, gross=hourly(2), cash=hourly(2, sizes.pools),
        fund_low=pools, index=assets, mark=markets, index_low=assets, index_high=assets,
        basis_low=markets, basis_high=markets,
        drawdown=jax.ShapeDtypeStruct((sizes.pools, paths), dtype),
        unknown=jax.ShapeDtypeStruct((1, paths), dtype),
    )  # fmt: skip
