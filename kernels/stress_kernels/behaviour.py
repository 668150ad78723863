"""What people do that nobody forces them to: makers leave, holders close, others open.

Makers and holders watch how far an index has moved within some minutes, as far as the move is EXOGENOUS: judged by
moves that forced orders made, they would feed themselves.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.ladder import Ladders
from stress_kernels.pytree import pytree, static
from stress_kernels.world import along


@pytree
class Spike:
    """A move of an index after which people behave differently for a while."""

    move: Float[Array, " a"]
    """How large it must be, up or down [log]."""
    lasting: Float[Array, ""]
    """For how long after the last such move [steps]."""
    steps: int = static()
    """Within which [steps]."""

    def age(self, exogenous: Float[Array, "step a p"]) -> Float[Array, "step a p"]:
        """Time since the last such move over what it lasts [1]; infinite before the first.

        Args:
            exogenous: Log index without impact after each step, relative to the start.
        """
        lag = min(self.steps, exogenous.shape[0])
        before = jnp.concatenate([jnp.zeros_like(exogenous[:lag]), exogenous[: exogenous.shape[0] - lag]])
        spike = jnp.abs(exogenous - before) >= along(1, self.move, exogenous)
        number = along(0, jnp.arange(len(exogenous), dtype=exogenous.dtype), exogenous)
        last = jax.lax.cummax(jnp.where(spike, number, -jnp.inf), axis=0)
        return (number - last) / self.lasting


@pytree
class Makers:
    """Market makers that leave books and auctions after a spike, and come back one after the other."""

    spike: Spike
    share: Float[Array, ""]
    """Of depth and of auction capacity that is gone at first [1]."""


@pytree
class Deleveraging:
    """Holders that close a share of what they hold in every step, until it is calm again."""

    spike: Spike
    share: Float[Array, ""]
    """Of what is left, in a step [1]."""


@pytree
class Inflow:
    """Accounts that are opened at the mark in cohorts, one after another, each alike."""

    ladders: Ladders
    """A cohort as if opened at the start, one entry class."""
    every: int = static()
    """Steps from one cohort to the next."""
    cohorts: int = static()
    """How many there are at a time: the next one takes the place of the oldest, whose holders close."""


@pytree
class Behaviour:
    """What is not forced; of what nobody does, nothing."""

    makers: Makers | None = None
    deleveraging: Deleveraging | None = None
    inflow: Inflow | None = None


@pytree
class Mood:
    """How people feel in each step, or in one."""

    absent: Float[Array, "*step a p"] | None = None
    """Share of the makers that has left, where any may [1]."""
    closing: Float[Array, "*step a p"] | None = None
    """Share that holders close, where any may [1]."""
    nearer: Float[Array, "*step a p"] | None = None
    """By how much nearer triggers are for what a path does between its steps, where its volatility changes [log]."""


@pytree
class Ages:
    """Time since the last spike over what it lasts [1]; of what nobody does, nothing."""

    makers: Float[Array, "*step a p"] | None = None
    holders: Float[Array, "*step a p"] | None = None


def ages(exogenous: Float[Array, "step a p"], behaviour: Behaviour | None) -> Ages:
    """Those of every step.

    Args:
        exogenous: Log index without impact after each step, relative to the start.
        behaviour: Of the run, where there is any.
    """
    makers, holders = (None, None) if behaviour is None else (behaviour.makers, behaviour.deleveraging)
    return Ages(
        makers=None if makers is None else makers.spike.age(exogenous),
        holders=None if holders is None else holders.spike.age(exogenous),
    )


def moods(of: Ages, behaviour: Behaviour | None) -> Mood:
    """The mood in every step, which the exogenous path alone decides."""
    makers, holders = (None, None) if behaviour is None else (behaviour.makers, behaviour.deleveraging)
    absent = closing = None
    if makers is not None and of.makers is not None:
        absent = makers.share * jnp.maximum(1 - of.makers, 0.0)
    if holders is not None and of.holders is not None:
        closing = jnp.where(of.holders < 1, holders.share, 0.0)
    return Mood(absent=absent, closing=closing)
