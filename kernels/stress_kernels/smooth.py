"""The engine with smooth triggers, and how what a path does changes with the path.

On a ladder a trigger is a step: an account is in the sweep or it is not, and no derivative says how near it was. On a
smooth ladder each account is spread over logistic distances about its trigger, and places between two rungs count in
proportion. Everything else is the engine itself. Derivatives are forward ones: a path moved in one direction is
another path beside it, and they pass through loops whose number of turns depends on the data. Accounts on cross
margin keep their steps.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stress_kernels.accounts import Accounts
from stress_kernels.ladder import CLASSES, Ladders
from stress_kernels.money import add_up
from stress_kernels.simulate import simulate
from stress_kernels.world import World

Measures = dict[str, Array]
_NOTHING = 1e-9
"""Share of an account that is none: impact has an infinite slope at no flow, and 32 bits no number near it."""


def soften(ladders: Ladders, width: Float[Array, ""]) -> Ladders:
    """Ladders whose triggers are spread by a logistic law of this scale, cut off at the start of the ladder.

    What a move to depth d triggers of an account at depth t is (F(d - t) - F(-t)) / F(t), F the logistic function:
    nothing at the start, all of it far behind t, and 1 (d >= t) as the width goes to 0.

    Args:
        ladders: With a rung for each trigger, or triggers at the centres of their cells.
        width: Scale of the law [log].
    """
    shape, cells, spread = ladders.rows.shape, ladders.cells, ladders.spread
    before = ladders.rows.reshape(-1, *shape[-2:])
    grid = jnp.arange(cells, dtype=before.dtype) / cells
    ends = jnp.append(spread * grid / (1 - grid), jnp.inf)

    def one(table: Float[Array, "rung column"], depth: Float[Array, " trigger"]) -> Float[Array, "rung column"]:
        near = jnp.where(jnp.isfinite(depth), depth, 0.0)
        start, whole = jax.nn.sigmoid(-near / width), jax.nn.sigmoid(near / width)
        passed = (jax.nn.sigmoid((ends[:, None] - near[None]) / width) - start[None]) / whole[None]
        passed = jnp.where(passed > _NOTHING, passed, 0.0)
        held = jnp.where(jnp.isfinite(depth)[:, None], jnp.diff(table[: len(depth) + 1], axis=0), 0.0)
        beyond = jnp.broadcast_to(table[-1], (len(table) - cells - 1, table.shape[1]))
        return jnp.concatenate([jnp.matmul(passed, held, precision="highest"), beyond])

    if ladders.probes == 0:
        middle = (jnp.arange(cells, dtype=before.dtype) + 0.5) / cells
        columns = jnp.moveaxis(before, 0, -1).reshape(shape[-2], -1)
        rows = one(columns, spread * middle / (1 - middle)).reshape(shape[-2], shape[-1], -1)
        rows = jnp.moveaxis(rows, -1, 0)
    else:
        depths = ladders.depth.reshape(-1, ladders.depth.shape[-1])
        rows = jax.lax.map(lambda of: one(*of), (before, depths))
    rows = rows.reshape(shape)
    return replace(ladders, rows=rows, coins=add_up(rows[..., 0 : 2 * CLASSES : 2], -1), probes=-1)


def measures(
    exogenous: Float[Array, "step a p"], ladders: Ladders, world: World, accounts: Accounts | None = None
) -> Measures:
    """What a reverse stress test asks of paths.

    Args:
        exogenous: Log index without impact after each step.
        accounts: Those on cross margin, where there are any.

    Returns:
        `volume` of every hour over all markets (hour p), `fund_low`, the lowest equity of every pool (f p), and
        `adl_volume` of every venue over all hours (v p) [USD].
    """
    found = simulate(exogenous, ladders, world, accounts)
    return {
        "volume": add_up(found["liquidation_volume"], 1, 2, 3),
        "fund_low": jnp.min(found["fund_low"], axis=0),
        "adl_volume": jnp.sum(found["adl_volume"], axis=(0, 2)),
    }


def slopes(
    exogenous: Float[Array, "step a p"],
    direction: Float[Array, "step a p"],
    ladders: Ladders,
    world: World,
    accounts: Accounts | None = None,
) -> tuple[Measures, Measures]:
    """The measures of paths, and by how much they change as each path goes on in a direction of its own.

    Args:
        exogenous: As in `measures`.
        direction: Change of each path per unit of what is asked [log].
        ladders: From `soften`: on others triggers do not move.
        accounts: Those on cross margin, where there are any; their triggers do not move.
    """
    return jax.jvp(lambda paths: measures(paths, ladders, world, accounts), (exogenous,), (direction,))
