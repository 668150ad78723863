"""Quiet rounds on all paths, a few at a time, and their entry in the books.

What moves is kept as rows in the meantime, so that a turn can pick some paths. What is closed is summed up ladder by
ladder, and posted when the rounds of the step are over.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stress_kernels.breakers import throughput
from stress_kernels.ladder import Ladders
from stress_kernels.ladder_lanes import Lanes, room
from stress_kernels.ledger import book_ladders, book_trades
from stress_kernels.marks import Held
from stress_kernels.money import add_up, any_of
from stress_kernels.pytree import pytree, static
from stress_kernels.quiet import Moving, Tally, quiet_round, terms
from stress_kernels.rows import pack, running_sum, those_first, unpack
from stress_kernels.state import Record, State, layers_of
from stress_kernels.trades import Trades
from stress_kernels.world import World, along

_SUMS = 3
"""Kept of what is closed on a ladder."""
Rest = tuple[State, Array, Bool[Array, " p"], Float[Array, " p"]]
"""State and record; paths on which the next round is not quiet; and how many rounds each path has had."""


@pytree
class _Turns:
    """Paths between two turns."""

    table: Float[Array, "p column"]
    """As rows: what moves, then what stands still."""
    closed: Float[Array, "ladder_of_path sum"]
    """Path by path."""
    live: Bool[Array, " p"]
    """Those that have a round before them."""
    loud: Bool[Array, " p"]
    """Those whose next round is not quiet."""
    rounds: Float[Array, " p"]
    """Carried out on each."""


@pytree
class _Given:
    """What all turns of a step share."""

    moving: Moving
    """Before the first turn, of all paths."""
    still: Any
    """What a round reads besides: accounts, inventories, and what is held."""
    state: State
    of_markets: Float[Array, "v a s column"]
    ladders: Ladders
    world: World
    few: int = static()
    """Paths that a turn has."""


def quiet_rounds(
    state: State,
    record: Float[Array, "p column"],
    held: Held,
    due: Float[Array, "v a s e p"],
    live: Bool[Array, " p"],
    like: Record,
    ladders: Ladders,
    world: World,
) -> Rest:
    """Rounds on every live path until one triggers nothing or is not quiet; that one is not carried out.

    Args:
        due: What the marks trigger.
        live: Paths on which a round would do anything.
        like: Shapes of the record.
    """
    paths, zero = record.shape[0], jnp.zeros_like(state.quotes.basis)
    none = jnp.zeros_like(state.funds.equity)
    moving = Moving.of(state, due, Tally(zero, zero, none, none, zero[:, 0]))
    still = state.kept, state.funds.inventory, replace(held, absent=None)
    given = _Given(moving, still, state, terms(world), ladders, world, min(paths, world.lanes))
    waiting = any_of(state.queued > 0, 0, 1, 2, 3) | any_of(state.funds.adl_on, 0)

    def more(carry: tuple[Array, _Turns]) -> Array:
        return (carry[0] < world.rounds) & jnp.any(carry[1].live)

    def a_round(carry: tuple[Array, _Turns]) -> tuple[Array, _Turns]:
        return carry[0] + 1, _round(*carry, given)

    turns = _Turns(
        table=pack((moving, still)),
        closed=jnp.zeros((paths * math.prod(due.shape[:-1]), _SUMS), record.dtype),
        live=live & ~waiting,
        loud=live & waiting,
        rounds=jnp.zeros(paths, record.dtype),
    )
    _, turns = jax.lax.while_loop(more, a_round, (jnp.zeros((), jnp.int32), turns))
    moving = unpack(turns.table[:, : _width(moving)], moving)
    return moving.into(state), _post(record, moving, turns, held, like, given), turns.loud, turns.rounds


def _round(number: Int[Array, ""], turns: _Turns, given: _Given) -> _Turns:
    """One round on every live path: the next few of them at a time, and fewer where their ladders find no room."""
    line, count = _listed(turns.live, given.few)

    def a_turn(carry: tuple[Array, _Turns]) -> tuple[Array, _Turns]:
        start, now = carry
        chosen, there = _next(line, start, count, given.few)
        moving, (kept, inventory, held) = unpack(now.table[chosen], (given.moving, given.still))
        most, wanted, ladders = room(moving.due.shape), moving.due > moving.reach, given.ladders.of_paths(chosen)
        wanted = wanted & along(-1, there, wanted)
        part = there & (running_sum(add_up(wanted.astype(jnp.float32), 0, 1, 2, 3)) <= most)
        lanes = Lanes.of(ladders, wanted & along(-1, part, wanted), kept, most)
        rest = replace(given.state, kept=kept, funds=replace(given.state.funds, inventory=inventory))
        moving, closed, quiet = quiet_round(
            moving, rest, held, number == 0, lanes, given.of_markets, ladders, given.world
        )
        mine, back = (_home(chosen, x, now) for x in (part, part & quiet))
        put = {"unique_indices": True, "mode": "drop"}
        return start + jnp.sum(part, dtype=jnp.int32), _Turns(
            table=now.table.at[back, : _width(moving)].set(pack(moving), **put),
            closed=now.closed.at[lanes.rows_of(back, len(now.live))].add(closed.T, **put),
            live=now.live.at[mine].set(moving.live & quiet, **put),
            loud=now.loud.at[mine].set(~quiet, **put),
            rounds=now.rounds.at[back].add(1.0, **put),
        )

    start = jnp.zeros_like(count)
    return jax.lax.while_loop(lambda carry: carry[0] < count, a_turn, (start, turns))[1]


def _listed(wanted: Bool[Array, " p"], few: int) -> tuple[Int[Array, " n"], Int[Array, ""]]:
    """Numbers of paths, those that are wanted first, and how many those are; a few more for the last turn to read."""
    line = those_first(wanted)
    return jnp.concatenate([line, line[:few]]), jnp.sum(wanted, dtype=jnp.int32)


def _next(
    line: Int[Array, " n"], start: Int[Array, ""], count: Int[Array, ""], few: int
) -> tuple[Int[Array, " k"], Bool[Array, " k"]]:
    """The next few of a list, and which of them are wanted."""
    chosen = jax.lax.optimization_barrier(jax.lax.dynamic_slice_in_dim(line, start, few))
    return chosen, start + jnp.arange(few) < count


def _home(chosen: Int[Array, " k"], wanted: Bool[Array, " k"], turns: _Turns) -> Int[Array, " k"]:
    """Where to put paths back: nowhere what is not wanted."""
    return jnp.where(wanted, chosen, len(turns.live) + jnp.arange(len(chosen)))


def _width(moving: Moving) -> int:
    """Columns of what moves."""
    return sum(math.prod(x.shape[:-1]) for x in jax.tree.leaves(moving))


def _post(
    record: Float[Array, "p column"], moving: Moving, turns: _Turns, held: Held, like: Record, given: _Given
) -> Float[Array, "p column"]:
    """Post what was closed on the paths that had a round."""
    line, count = _listed(turns.rounds > 0, given.few)
    closed = turns.closed.reshape(len(record), -1)

    def a_turn(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        start, record = carry
        chosen, there = _next(line, start, count, given.few)
        tally, reach = jax.tree.map(lambda x: x[..., chosen], (moving.tally, moving.reach))
        sums = jax.lax.optimization_barrier(closed[chosen].T).reshape(*reach.shape[:-1], _SUMS, -1)
        coins, cash, usd = (add_up(sums[..., i, :], 3) for i in range(_SUMS))
        budget = throughput(None if held.liquidates is None else held.liquidates[:, chosen], given.world) - tally.used
        now = _posted(unpack(record[chosen], like), coins, cash, usd, tally, given.world)
        now = pack(replace(now, done=reach, budget=jnp.maximum(budget, 0.0)))
        return start + given.few, record.at[_home(chosen, there, turns)].set(now, unique_indices=True, mode="drop")

    return jax.lax.while_loop(lambda carry: carry[0] < count, a_turn, (jnp.zeros_like(count), record))[1]


def _posted(
    record: Record,
    coins: Float[Array, "v a s p"],
    cash: Float[Array, "v a s p"],
    usd: Float[Array, "v a s p"],
    tally: Tally,
    world: World,
) -> Record:
    """A record with what the book took, and what accounts paid to pools and lacked."""
    stocks = book_trades(record.stocks, Trades.in_book(coins, cash), coins, cash, world)
    stocks = book_ladders(stocks, world.of_venues(tally.received), world.of_venues(tally.lacking), world)
    hour, book = record.hour, layers_of(world).index("book")
    hour = replace(
        hour,
        layers=hour.layers.at[book].add(usd),
        first_round=hour.first_round + tally.first,
        accounts=hour.accounts + tally.accounts,
        surplus=hour.surplus + tally.received,
        deficit=hour.deficit + tally.lacking,
    )
    return replace(record, stocks=stocks, hour=hour)
