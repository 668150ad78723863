"""Positions that come back after a shock, or go on leaving: a cohort a day, and how many there are of each account.

A cohort has as many accounts as are missing on its path, so that tables stand for any number of copies
(`Ladders.copies`); and of accounts that leave, the same share of each is gone.
"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from stress_kernels.cohorts import none_open, with_tables
from stress_kernels.ladder import Kept, Ladders, quantity, total_row
from stress_kernels.money import add_up
from stress_kernels.pytree import pytree, static
from stress_kernels.rows import pack, template, unpack
from stress_kernels.state import Record
from stress_kernels.step import Carry
from stress_kernels.voluntary import booked, holdings
from stress_kernels.world import World, along


@pytree
class Comeback:
    """Positions that are opened again, or go on leaving."""

    ladders: Ladders
    """Accounts that stand for all of a market side at the start, as if opened there; one entry class."""
    level: Float[Array, ""]
    """Positions that there are in the long run, of those of a market side at the start [1]."""
    share: Float[Array, ""]
    """Part of the way there that is gone in a day [1]."""
    cohorts: int = static()
    """Days, each with a cohort of its own."""


def with_room(
    carry: Carry, like: Record, ladders: Ladders, rule: Comeback | None
) -> tuple[Carry, Record, Ladders, Float[Array, "v a s e p"]]:
    """Ladders with a cohort for each day, none of which is open, and copies of all tables."""
    ones = jnp.ones_like(carry.state.reach)
    if rule is None:
        return carry, like, ladders, ones
    state, record, days = carry.state, unpack(carry.record, like), rule.cohorts
    kept = state.kept
    reach, cohorts = none_open(state.reach, kept, days, ladders)
    empty = jnp.zeros_like(reach[:, :, :, -days:])

    def longer(x: Array) -> Array:
        return jnp.concatenate([x, empty], axis=3)

    state = replace(state, reach=reach, queued=longer(state.queued), kept=cohorts)
    hour = replace(record.hour, adl_accounts=longer(record.hour.adl_accounts))
    done = jnp.concatenate([record.done, reach[:, :, :, -days:]], axis=3)
    record = replace(record, done=done, taken=longer(record.taken), hour=hour)
    ladders = with_tables(ladders, rule.ladders, days)
    return replace(carry, state=state, record=pack(record)), template(record), ladders, longer(ones)


def come_back(
    carry: Carry,
    copies: Float[Array, "v a s e p"],
    number: Int[Array, ""],
    held: Float[Array, "v a s one"],
    rule: Comeback,
    like: Record,
    ladders: Ladders,
    world: World,
) -> tuple[Carry, Float[Array, "v a s e p"]]:
    """A day's share of the way to the level of open interest: of what is missing some is opened, of what is too much
    some closes, at the mark and against the rest of the market, as in ordinary trading that moves no price.

    It happens when the day begins, so that fresh positions live through all of it. Whole accounts leave, with their
    equity, as large a share of each; those of a ladder on which anything waits in the queue stay.

    Args:
        carry: Paths when the day begins.
        copies: As in `Ladders`.
        number: Of the day.
        held: Coins of every market side at the start of the run.
    """
    state, record = carry.state, unpack(carry.record, like)
    traders = jnp.abs(record.stocks.traders.value)
    gap = rule.share * (rule.level * held - traders)
    mark = jnp.exp(state.quotes.mark)[:, :, None, None]
    counted = replace(ladders, copies=copies)
    there = jnp.where(state.queued > 0, 0.0, holdings(state, counted))
    everyone = add_up(there, 3)
    part = jnp.where(everyone > 0, jnp.minimum(-gap / jnp.where(everyone > 0, everyone, 1.0), 1.0), 0.0)
    part = jnp.where(state.queued > 0, 0.0, jnp.maximum(part, 0.0)[:, :, :, None])
    whole = add_up(quantity(total_row(rule.ladders)), 3)
    opened = jnp.where(whole > 0, jnp.maximum(gap, 0.0), 0.0)

    place = state.reach.shape[3] - rule.cohorts + number
    mine = along(3, jnp.arange(state.reach.shape[3]), state.reach) == place
    fresh = (opened / jnp.where(whole > 0, whole, 1.0))[:, :, :, None] * mark
    kept = state.kept
    assert kept.opened is not None
    state = replace(
        state,
        reach=jnp.where(mine & (fresh > 0), 0.0, state.reach),
        kept=Kept(
            scale=jnp.where(mine, 1 / mark, kept.scale),
            shift=kept.shift,
            opened=jnp.where(mine, mark, kept.opened),
        ),
    )
    record = booked(record, opened - add_up(part * there, 3), mark[:, :, 0, 0], world)
    record = replace(record, done=jnp.where(mine & (fresh > 0), 0.0, record.done))
    carry = replace(carry, state=state, record=pack(record))
    return carry, jnp.where(mine, fresh, copies * (1 - part))
