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
from jaxtyping import Array, Float

from stress_kernels.behaviour import Ages, Mood, ages, moods
from stress_kernels.coarser_clock import slowed, steps_in_one
from stress_kernels.cohorts import inflow_of, joined
from stress_kernels.comeback import Comeback, come_back, with_room
from stress_kernels.ladder import CLASSES, Ladders, quantity, row_at, total_row
from stress_kernels.ledger import ledger_residual
from stress_kernels.money import add_up
from stress_kernels.pytree import pytree, static
from stress_kernels.rows import pack, unpack
from stress_kernels.simulate import Outputs, cleared, depth_of_steps, open_interest, status, through_hours
from stress_kernels.state import Record, State
from stress_kernels.step import Carry, step
from stress_kernels.world import World, along, side_sign

HOURS = 24
"""Of a day."""


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
    carry, like, ladders, copies = with_room(carry, like, ladders, rule.comeback)
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
        carry, copies = cleared(now.carry, like, world), now.copies
        if rule.comeback is not None:
            carry, copies = come_back(carry, copies, number, held, rule.comeback, like, ladders, world)
        counted = replace(ladders, copies=copies)
        carry, squares = _through_day(carry, steps, like, counted, world)
        return Day(carry, copies), _report(carry, like, squares, counted, world)

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
