"""The rounds of a step on all paths: those in which the book takes everything, and the others."""

from __future__ import annotations

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stress_kernels.account_rounds import Cross
from stress_kernels.account_watch import ALL_PATHS, restless, watch
from stress_kernels.accounts import Accounts, Holdings
from stress_kernels.breakers import throughput
from stress_kernels.cascade import cascade_round, swept
from stress_kernels.ladder import Ladders
from stress_kernels.ladder_lanes import Lanes, room
from stress_kernels.marks import Held, reached
from stress_kernels.money import add_up, any_of
from stress_kernels.price import Quotes
from stress_kernels.quiet import is_known
from stress_kernels.quiet_turns import quiet_rounds
from stress_kernels.rows import pack, running_sum, those_first, unpack, when
from stress_kernels.state import Record, State
from stress_kernels.world import World, along

Turns = tuple[Array, Array, Array, Array, Holdings | None]
"""Paths as rows of what every step looks at, and of the rest; which are live; where the next turn looks first."""
_DUST = 1e-3
"""A queue of at most this is rounding [coins]."""


def cascade(
    state: State,
    record: Float[Array, "p column"],
    holdings: Holdings | None,
    held: Held,
    step: Int[Array, ""],
    like: Record,
    ladders: Ladders,
    world: World,
    accounts: Accounts | None,
) -> tuple[State, Array, Holdings | None]:
    """Rounds until one triggers nothing and no queue can use throughput, at most `world.rounds`.

    On a path they go the short way as long as the book takes everything, and from then on the long one.
    """
    reach = reached(state, held, ladders, world)
    live, rounds = _live(state, reach, throughput(held.liquidates, world)), jnp.zeros(record.shape[0])
    full = functools.partial(_full_rounds, held=held, step=step, like=like, ladders=ladders, world=world)
    if accounts is not None or not is_known(ladders, world):
        return full(state, record, live, rounds, holdings=holdings, accounts=accounts)
    state, record, live, rounds = quiet_rounds(state, record, held, reach, live, like, ladders, world)

    def others(before: tuple[State, Array]) -> tuple[State, Array]:
        state, record, _ = full(*before, live, rounds)
        return state, record

    state, record = when(jnp.any(live), others, (state, record))
    return state, record, None


def _full_rounds(
    state: State,
    record: Float[Array, "p column"],
    live: Bool[Array, " p"],
    rounds: Float[Array, " p"],
    *,
    held: Held,
    step: Int[Array, ""],
    like: Record,
    ladders: Ladders,
    world: World,
    holdings: Holdings | None = None,
    accounts: Accounts | None = None,
) -> tuple[State, Array, Holdings | None]:
    """Rounds through all layers, on paths that have had `rounds` of them.

    In most steps nothing happens on most paths. So rounds are carried out for a few paths at a time: the next that are
    live are gathered, go through one round, and are put back; all have had theirs before the first of them comes again,
    so that the last turns are not for one path with many rounds. Of their ladders, those on which anything is swept go
    to lanes; paths whose ladders find no room there wait.
    """
    paths, reach = record.shape[0], reached(state, held, ladders, world)
    few = min(paths, world.lanes)
    most = room((*reach.shape[:-1], few))
    moving = (state, reach, rounds)

    def crossed(holdings: Holdings | None, chosen: Array, back: Array, quotes: Quotes, rounds: Array) -> Cross | None:
        """Accounts on cross margin on some paths, where there are any."""
        if accounts is None or holdings is None:
            return None
        lane = jnp.full(paths, -1).at[back].set(jnp.arange(len(chosen)), mode="drop")
        number = step * world.rounds + rounds.astype(jnp.int32)
        liquidates = None if held.liquidates is None else held.liquidates[:, chosen]
        return Cross(accounts, holdings, chosen, lane, quotes, number, liquidates)

    def more(carry: Turns) -> Array:
        return jnp.any(carry[2])

    def body(carry: Turns) -> Turns:
        table, kept, live, following, holdings = carry
        line = (following + everyone) % paths
        chosen = jax.lax.optimization_barrier(line[those_first(live[line])[:few]])
        now, reach, rounds = unpack(table[chosen], moving)
        here, mine = jax.tree.map(lambda x: x[..., chosen], held), ladders.of_paths(chosen)
        # Those that only fill up take no part: one that has had all its rounds would go through another.
        wanted = swept(now, reach)
        fits = running_sum(add_up(wanted.astype(jnp.float32), 0, 1, 2, 3)) <= most
        part = fits & live[chosen]
        back = jnp.where(part, chosen, paths + jnp.arange(few))
        lanes = Lanes.of(mine, wanted & along(-1, part, wanted), now.kept, most)
        cross = crossed(holdings, chosen, back, now.quotes, rounds)
        now, after, cross = cascade_round(
            now, unpack(kept[chosen], like), here, reach, rounds == 0, lanes, mine, world, cross
        )
        reach, rounds = reached(now, here, mine, world), rounds + 1
        again = _live(now, reach, after.budget)
        if cross is not None:
            cross = watch(replace(cross, quotes=now.quotes))
            again = again | restless(cross, after.budget)
        again = again & (rounds < world.rounds)
        put = {"unique_indices": True, "mode": "drop"}
        return (
            table.at[back].set(pack((now, reach, rounds)), **put),
            kept.at[back].set(pack(after), **put),
            live.at[back].set(again, **put),
            chosen[jnp.sum(part, dtype=chosen.dtype) - 1] + 1,
            None if cross is None else cross.holdings,
        )

    everyone = jnp.arange(paths)
    cross = crossed(holdings, everyone, everyone, state.quotes, rounds)
    if cross is not None:
        cross = watch(cross, ALL_PATHS)
        live, holdings = live | restless(cross, throughput(held.liquidates, world)), cross.holdings
    start = jnp.zeros_like(everyone[0])
    table, record, *_, holdings = jax.lax.while_loop(more, body, (pack(moving), record, live, start, holdings))
    return unpack(table, moving)[0], record, holdings


def _live(state: State, reach: Float[Array, "v a s e n"], budget: Float[Array, "v a #n"]) -> Bool[Array, " n"]:
    """Whether a round would do anything."""
    waiting = any_of(state.queued > _DUST, 2, 3) & (budget > 1.0)
    return any_of(reach > state.reach, 0, 1, 2, 3) | any_of(waiting, 0, 1)
