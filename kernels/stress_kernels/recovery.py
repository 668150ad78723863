"""The days after a run's last hour: the same paths go on, on a coarser clock.

Everything is carried on: prices and imbalances, ladders and what waits in the engine, funds and their rolling peaks,
cohorts of an inflow, the ledger. The step is that of the run with a world made for its length. Three things differ.
A forced order is spread over a long step: its imbalance decays while it is executed (`spread_out`). Triggers are
nearer by what a path of the moment's volatility does between two steps. And every day some positions come back, or go
on leaving, until open interest is at its level.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from stress_kernels.behaviour import Ages, Mood, ages, moods
from stress_kernels.coarser_clock import slowed, steps_in_one
from stress_kernels.cohorts import inflow_of, joined, none_open, with_tables
from stress_kernels.ladder import CLASSES, Kept, Ladders, quantity, row_at, total_row
from stress_kernels.ledger import ledger_residual
from stress_kernels.money import add_up
from stress_kernels.pytree import pytree, static
from stress_kernels.rows import pack, template, unpack
from stress_kernels.simulate import Outputs, cleared, depth_of_steps, open_interest, status, through_hours
from stress_kernels.state import Record, State
from stress_kernels.step import Carry, step
from stress_kernels.voluntary import booked, holdings
from stress_kernels.world import World, along, side_sign

HOURS = 24
"""Of a day."""


@pytree
class Comeback:
    """Positions that are opened again, or go on leaving."""

    ladders: Ladders
    """Accounts that stand for all of a market side at the start, as if opened there; one entry class."""
    level: Float[Array, ""]
    """Positions that there are in the long run, of those of a market side at the start [1]."""
    share: Float[Array, ""]
    """Part of the way there that is gone in a day [1]."""


@pytree
class Recovery:
    """What follows the last hour."""

    world: World
    """The same venues on the coarser clock."""
    comeback: Comeback | None
    days: int = static()


@pytree
class Later:
    """What moves prices after the last hour."""

    log: Float[Array, "later a p"]
    """Log index without impact after each step, relative to the last hour's end."""
    nearer: Float[Array, "later a p"]
    """By how much nearer triggers are for what a path does between these steps [log]."""
    volatility: Float[Array, "a p"]
    """Daily, with which it begins [1]."""


@pytree
class Day:
    """A path between two days."""

    carry: Carry
    copies: Float[Array, "v a s e p"]
    """As in `Ladders`."""


def simulate_on(exogenous: Float[Array, "step a p"], later: Later, ladders: Ladders, world: World) -> Outputs:
    """Run every path through all hours, and on through the days of the recovery; accounts on ladders alone.

    Args:
        exogenous: Log index without impact after each step, relative to the start.
        later: What moves it then.

    Returns:
        Arrays of `simulate`, and those of days, named `recovery_...`, days first and paths last. Day 0 is how the last
        hour leaves things, with the volume of the last 24 hours.
    """
    rule = world.recovery
    assert rule is not None
    rule = replace(rule, world=replace(rule.world, lanes=world.lanes))
    outputs, carry, like = through_hours(exogenous, ladders, world)
    held, ladders = add_up(quantity(total_row(ladders)), 3), joined(ladders, inflow_of(world))
    carry = _slowed(carry, world, rule.world)
    carry, like, ladders, copies = _with_room(carry, like, ladders, rule)
    spread = spread_out(rule.world, steps_in_one(world, rule.world))

    first = _report(carry, like, later.volatility**2, replace(ladders, copies=copies), spread)
    first["recovery_liquidation_volume"] = add_up(outputs["liquidation_volume"][-HOURS:], 0)
    steps = _steps(exogenous, later, world, rule)
    carry, daily = _through_days(Day(carry, copies), steps, held, like, ladders, spread, rule)
    daily = jax.tree.map(lambda one, more: jnp.concatenate([one[None], more]), first, daily)
    residual = jnp.maximum(outputs["ledger_residual"], jnp.max(daily.pop("ledger_residual"), axis=0))
    sound = jnp.maximum(outputs["status"], status(carry, residual))
    return outputs | daily | {"ledger_residual": residual, "status": sound}


def _through_days(
    start: Day,
    steps: tuple[Array, Array, Mood],
    held: Float[Array, "v a s one"],
    like: Record,
    ladders: Ladders,
    world: World,
    rule: Recovery,
) -> tuple[Carry, Outputs]:
    """All days, and what is kept of each.

    Args:
        start: Paths before the first.
        steps: What the exogenous path alone decides, by day, hour and step.
        held: Coins of every market side at the start of the run.
        like: Shapes of the record.
        ladders: With a cohort for each day.
        world: In which flows are spread over a step.
        rule: Of these days.
    """

    def day(now: Day, xs: tuple[Array, tuple[Array, Array, Mood]]) -> tuple[Day, Outputs]:
        number, steps = xs
        now = replace(now, carry=cleared(now.carry, like, world))
        if rule.comeback is not None:
            now = _come_back(now, number, held, rule.comeback, like, ladders, rule)
        counted = replace(ladders, copies=now.copies)
        carry, squares = _through_day(now.carry, steps, like, counted, world)
        return replace(now, carry=carry), _report(carry, like, squares, counted, world)

    end, daily = jax.lax.scan(day, start, (jnp.arange(rule.days), steps))
    return end.carry, daily


def spread_out(coarse: World, each: int) -> World:
    """A world in which the flow of a step is not all there at its end: books are as much deeper.

    A flow executed in equal parts over the n fine steps of a coarse one leaves (1 - d^n) / (n (1 - d)) of its imbalance
    at the end, d what a fine step leaves of one. Flows are taken to be spread like that, and filled from the curve that
    leads there.

    Args:
        coarse: The world of the coarse clock; its decays are d^n.
        each: n.
    """
    impact = coarse.impact

    def left(decay: Float[Array, ""]) -> Float[Array, ""]:
        one = decay ** (1 / each)
        return jnp.where(one < 1, (1 - decay) / (each * jnp.maximum(1 - one, 1e-12)), 1.0)

    if each == 1:
        return coarse
    adv, adv_global = coarse.adv / left(impact.decay_local), coarse.adv_global / left(impact.decay_global)
    return replace(coarse, adv=adv, adv_global=adv_global)


def _slowed(carry: Carry, fine: World, coarse: World) -> Carry:
    """Paths as they stand, on the coarse clock. Of a pinned index, pushes of the past are in the recorded price."""
    pinned = carry.state.u_global * fine.impact.index_weight
    state = replace(carry.state, u_global=pinned)
    return replace(carry, state=state, memory=slowed(carry.memory, fine, coarse))


def _with_room(
    carry: Carry, like: Record, ladders: Ladders, rule: Recovery
) -> tuple[Carry, Record, Ladders, Float[Array, "v a s e p"]]:
    """Ladders with a cohort for each day, none of which is open, and copies of all tables."""
    ones = jnp.ones_like(carry.state.reach)
    if rule.comeback is None:
        return carry, like, ladders, ones
    state, record, days = carry.state, unpack(carry.record, like), rule.days
    kept = state.kept
    reach, cohorts = none_open(state.reach, kept, days, ladders)
    empty = jnp.zeros_like(reach[:, :, :, -days:])

    def longer(x: Array) -> Array:
        return jnp.concatenate([x, empty], axis=3)

    state = replace(state, reach=reach, queued=longer(state.queued), kept=cohorts)
    hour = replace(record.hour, adl_accounts=longer(record.hour.adl_accounts))
    done = jnp.concatenate([record.done, reach[:, :, :, -days:]], axis=3)
    record = replace(record, done=done, taken=longer(record.taken), hour=hour)
    ladders = with_tables(ladders, rule.comeback.ladders, days)
    return replace(carry, state=state, record=pack(record)), template(record), ladders, longer(ones)


def _steps(
    exogenous: Float[Array, "step a p"], later: Later, world: World, rule: Recovery
) -> tuple[Array, Array, Mood]:
    """What the exogenous path alone decides of every step: by day, by hour, by step.

    The depth divisor asks for the return of five minutes: of a longer step it is taken to be as many of its standard
    deviations.
    """
    coarse, after = rule.world, later.log
    lag = 3600 * coarse.five_minutes / coarse.steps_per_hour
    mood = moods(_ages(exogenous, after, world, coarse), coarse.behaviour)
    depth = depth_of_steps(after * min(1.0, 300 / lag) ** 0.5, mood, coarse)
    shape = (rule.days, HOURS, coarse.steps_per_hour, *after.shape[1:])
    steps = exogenous[-1:] + after, depth, replace(mood, nearer=later.nearer)
    return jax.tree.map(lambda x: x.reshape(shape), steps)


def _ages(exogenous: Float[Array, "step a p"], after: Float[Array, "later a p"], fine: World, coarse: World) -> Ages:
    """Time since the last spike, one before the recovery began included; of what nobody does, nothing."""
    before, behaviour = ages(exogenous, fine.behaviour), coarse.behaviour
    number = along(0, jnp.arange(1, len(after) + 1, dtype=after.dtype), after)
    of = ages(after, behaviour)
    if behaviour is None:
        return of

    def since(lasting: Array, age: Array | None, earlier: Array | None) -> Array | None:
        return None if age is None or earlier is None else jnp.minimum(age, earlier[-1:] + number / lasting)

    makers, holders = behaviour.makers, behaviour.deleveraging
    return Ages(
        makers=None if makers is None else since(makers.spike.lasting, of.makers, before.makers),
        holders=None if holders is None else since(holders.spike.lasting, of.holders, before.holders),
    )


def _come_back(
    now: Day,
    number: Int[Array, ""],
    held: Float[Array, "v a s one"],
    rule: Comeback,
    like: Record,
    ladders: Ladders,
    of: Recovery,
) -> Day:
    """A day's share of the way to the level of open interest: of what is missing some is opened, of what is too much
    some closes, at the mark and against the rest of the market, as in ordinary trading that moves no price.

    It happens when the day begins, so that fresh positions live through all of it. Whole accounts leave, with their
    equity, as large a share of each; those of a ladder on which anything waits in the queue stay.

    Args:
        number: Of the day.
        held: Coins of every market side at the start of the run.
    """
    state, record = now.carry.state, unpack(now.carry.record, like)
    traders = jnp.abs(record.stocks.traders.value)
    gap = rule.share * (rule.level * held - traders)
    mark = jnp.exp(state.quotes.mark)[:, :, None, None]
    counted = replace(ladders, copies=now.copies)
    there = jnp.where(state.queued > 0, 0.0, holdings(state, counted))
    everyone = add_up(there, 3)
    part = jnp.where(everyone > 0, jnp.minimum(-gap / jnp.where(everyone > 0, everyone, 1.0), 1.0), 0.0)
    part = jnp.where(state.queued > 0, 0.0, jnp.maximum(part, 0.0)[:, :, :, None])
    whole = add_up(quantity(total_row(rule.ladders)), 3)
    opened = jnp.where(whole > 0, jnp.maximum(gap, 0.0), 0.0)

    place = state.reach.shape[3] - of.days + number
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
    record = booked(record, opened - add_up(part * there, 3), mark[:, :, 0, 0], of.world)
    record = replace(record, done=jnp.where(mine & (fresh > 0), 0.0, record.done))
    carry = replace(now.carry, state=state, record=pack(record))
    return Day(carry, jnp.where(mine, fresh, now.copies * (1 - part)))


def _through_day(
    carry: Carry, steps: tuple[Array, Array, Mood], like: Record, ladders: Ladders, world: World
) -> tuple[Carry, Float[Array, "a p"]]:
    """All steps of a day, and the sum of the squared log-returns of the index."""

    def one(now: tuple[Carry, Array], xs: tuple[Array, Array, Mood]) -> tuple[tuple[Carry, Array], None]:
        (carry, squares), (exogenous, depth, mood) = now, xs
        after = step(carry, exogenous, depth, like, ladders, world, None, mood)
        return (after, squares + (after.state.quotes.index - carry.state.quotes.index) ** 2), None

    def hour(now: tuple[Carry, Array], xs: tuple[Array, Array, Mood]) -> tuple[tuple[Carry, Array], None]:
        carry, squares = now
        record = unpack(carry.record, like)
        makers_left = jnp.broadcast_to(world.auction[..., None], record.makers_left.shape)
        carry = replace(carry, record=pack(replace(record, makers_left=makers_left)))
        return jax.lax.scan(one, (carry, squares), xs)

    start = carry, jnp.zeros_like(carry.state.quotes.index)
    return jax.lax.scan(hour, start, steps)[0]


def _report(carry: Carry, like: Record, squares: Float[Array, "a p"], ladders: Ladders, world: World) -> Outputs:
    """What is kept of a day."""
    state, record = carry.state, unpack(carry.record, like)
    return {
        "recovery_open_interest": open_interest(state, record, world),
        "recovery_mean_leverage": mean_leverage(state, ladders),
        "recovery_volatility": jnp.sqrt(squares),
        "recovery_liquidation_volume": add_up(record.hour.layers, 0),
        "recovery_fund_equity": state.funds.equity,
        "ledger_residual": ledger_residual(record.stocks, state.funds, world),
    }


def mean_leverage(state: State, ladders: Ladders) -> Float[Array, "v a p"]:
    """Notional over equity of all accounts that no trigger has reached, at the marks; NaN where there are none."""
    rest = total_row(ladders) - row_at(ladders, state.reach)
    coins, move = quantity(rest), jnp.expm1(state.quotes.mark)[:, :, None, None]
    value = add_up(rest[..., 1 : 2 * CLASSES : 2, :], -2)
    equity = add_up(side_sign(coins) * (coins * state.kept.level(move) - value), 2, 3)
    notional = add_up(coins * state.kept.scale, 2, 3) * (1 + move[:, :, 0, 0])
    return jnp.where(equity > 0, notional / jnp.where(equity > 0, equity, 1.0), jnp.nan)
