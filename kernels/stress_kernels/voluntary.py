"""Positions on ladders that their holders close or open of their own accord, and who takes the other side."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stress_kernels.behaviour import Inflow
from stress_kernels.ladder import Kept, Ladders, coins_at, quantity, total_row
from stress_kernels.layers import curve
from stress_kernels.marks import Held, observe, press, triggered
from stress_kernels.money import add_up
from stress_kernels.rows import pack, unpack, when
from stress_kernels.state import Record, State, worth_of
from stress_kernels.world import World, along, side_sign


def holdings(state: State, ladders: Ladders) -> Float[Array, "v a s e p"]:
    """Coins of the accounts that no trigger has reached."""
    total = quantity(total_row(ladders))
    return jnp.maximum(total - coins_at(ladders, state.reach), 0.0) * state.kept.scale


def close_some(
    state: State,
    record: Float[Array, "p column"],
    share: Float[Array, "a p"],
    held: Held,
    like: Record,
    ladders: Ladders,
    world: World,
) -> tuple[State, Array]:
    """Holders close a share of every position; the equity of each stays, and its trigger moves away.

    Longs and shorts of a market meet, and the rest goes to its book: all at the mean price along the impact curve over
    what is left, without a take bound. Every market starts from the same imbalances. A ladder on which anything waits
    in the engine's queue takes no part.

    Args:
        share: Of what is left [1].
    """

    def close(before: tuple[State, Array]) -> tuple[State, Array]:
        state, record = before
        kept, unit = state.kept, worth_of(state.quotes, world).unit
        part = jnp.where(state.queued > 0, 0.0, along_markets(share, state.queued))
        coins = add_up(part * holdings(state, ladders), 3)
        net = add_up(side_sign(coins) * coins, 2)
        flow = -net * unit
        line = curve(held.exogenous, state.u_local, state.u_global, held.depth, world)
        one = flow[:, :, None]
        price = jnp.exp(line.mean(one, line.after(one, world), world)[:, :, 0])
        less = kept.scale * part
        kept = replace(kept, scale=kept.scale - less, shift=kept.shift - less * price[:, :, None, None])
        record = booked(unpack(record, like), -coins, price, world)
        record = _reported(record, unit, closed=coins)
        return observe(press(replace(state, kept=kept), flow, held, world), world), pack(record)

    return when(jnp.any(share > 0), close, (state, record))


def turn_over(
    state: State,
    record: Float[Array, "p column"],
    step: Int[Array, ""],
    inflow: Inflow,
    held: Held,
    like: Record,
    ladders: Ladders,
    world: World,
) -> tuple[State, Array]:
    """At its time a new cohort is opened at the mark, in the place of the oldest one, whose holders close there.

    It is ordinary trading against the rest of the market, and moves no price. A ladder of which anything is past its
    trigger or waits in the queue stays as it is until it is its turn again.

    Args:
        step: That ends.
        inflow: Of the run.
        held: Of the step.
        ladders: With those of the cohorts at the end of the entry classes.
    """
    turns, due = (step + 1) // inflow.every, (step + 1) % inflow.every == 0

    def turn(before: tuple[State, Array]) -> tuple[State, Array]:
        state, record = before
        kept, unit, entries = state.kept, worth_of(state.quotes, world).unit, state.reach.shape[3]
        place = entries - inflow.cohorts + (turns - 1) % inflow.cohorts
        past = coins_at(ladders, triggered(state, held, ladders, world)) > coins_at(ladders, state.reach)
        idle = (state.queued <= 0) & ~past
        now = idle & (along(3, jnp.arange(entries), idle) == place)
        mark = jnp.broadcast_to(jnp.exp(state.quotes.mark)[:, :, None, None], now.shape)
        whole = quantity(total_row(ladders))
        closed = add_up(jnp.where(now, holdings(state, ladders), 0.0), 3)
        opened = add_up(jnp.where(now, whole / mark, 0.0), 3)
        state = replace(state, reach=jnp.where(now, 0.0, state.reach), kept=_anew(kept, now, mark))
        record = booked(unpack(record, like), opened - closed, mark[:, :, 0, 0], world)
        record = replace(record, done=jnp.where(now, 0.0, record.done), taken=jnp.where(now, 0.0, record.taken))
        return state, pack(_reported(record, unit, closed=closed, opened=opened))

    return when(due, turn, (state, record))


def _anew(kept: Kept, now: Bool[Array, "v a s e p"], mark: Float[Array, "v a s e p"]) -> Kept:
    """Tables as if opened at the mark: of a position of q coins at the start, q / mark are held, and all its prices are
    so many times as high."""
    assert kept.opened is not None
    return Kept(
        scale=jnp.where(now, 1 / mark, kept.scale),
        shift=jnp.where(now, 0.0, kept.shift),
        opened=jnp.where(now, mark, kept.opened),
    )


def along_markets(of_assets: Float[Array, "a p"], like: Float[Array, "v a s e p"]) -> Float[Array, "v a s e p"]:
    """Numbers of assets on all their ladders."""
    return jnp.broadcast_to(of_assets[None, :, None, None], like.shape)


def booked(record: Record, more: Float[Array, "v a s p"], price: Float[Array, "v a p"], world: World) -> Record:
    """Post what traders open, or close where negative, against the rest of the market."""
    stocks, signed = record.stocks, side_sign(more) * more
    net, gross = add_up(signed, 2), add_up(jnp.abs(more), 2)
    cash = world.by_currency(net * price)
    stocks = replace(
        stocks,
        traders_cash=stocks.traders_cash.add(-cash),
        rest_cash=stocks.rest_cash.add(cash),
        traders=stocks.traders.add(signed),
        rest=stocks.rest.add(-net),
        gross_cash=stocks.gross_cash + add_up(world.by_currency(gross * price), 1),
        gross_coins=stocks.gross_coins + add_up(gross, 0, 1),
    )
    return replace(record, stocks=stocks)


def _reported(
    record: Record,
    unit: Float[Array, "v a p"],
    closed: Float[Array, "v a s p"],
    opened: Float[Array, "v a s p"] | None = None,
) -> Record:
    """Add to what the hour reports."""
    hour = record.hour
    assert hour.voluntary is not None
    hour = replace(hour, voluntary=hour.voluntary + closed * unit[:, :, None])
    if opened is not None and hour.opened is not None:
        hour = replace(hour, opened=hour.opened + opened * unit[:, :, None])
    return replace(record, hour=hour)
