"""What the threads of the kernel on the chip tell each other, and all that is not in registers. Axes as in
`day_tables.py`."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stress_kernels.day_report import Report
from stress_kernels.day_tables import Place, Sizes, Tables
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
