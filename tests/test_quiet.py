"""Rounds in which the book takes everything, the short way, against the same rounds through all layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.population import THIN, paths, stressed
from stress_kernels import turns
from stress_kernels.marks import Held, reached
from stress_kernels.money import Sum
from stress_kernels.price import quotes
from stress_kernels.quiet_turns import quiet_rounds
from stress_kernels.rows import set_bits
from stress_kernels.simulate import open_carry, simulate
from stress_kernels.state import State
from stress_kernels.world import World

from stress.build import on_device

QUICKLY = {"xla_backend_optimization_level": 0}
"""Compiled in a third of the time, as these are few paths."""
AMPLE = 1e12


@pytest.fixture(scope="module")
def thin():
    """World and ladders with thin pools and a slow engine."""
    return on_device(stressed(pool_usd=THIN, throughput=3e8, horizon_hours=1)[1])[:2]


def test_what_comes_out_is_the_same(thin, monkeypatch):
    """Six falls and rallies, in full, where every layer works, and at a tenth of their size, where none but the book
    does. Between the two ways sums are rounded otherwise."""
    world, ladders = thin
    moves = jnp.asarray(np.concatenate([0.1 * paths()[:60], paths()[:60]], axis=-1))

    def run() -> dict[str, np.ndarray]:
        compiled = jax.jit(lambda *given: simulate(*given), compiler_options=QUICKLY)
        return jax.device_get(compiled(moves, ladders, world))

    short = run()
    monkeypatch.setattr(turns, "is_known", lambda ladders, world: False)
    full = run()
    layers = full["absorbed_volume"].sum(axis=(0, 1, 2))
    assert np.all(layers[:4, 6:].sum(axis=1) > 1e7) and np.all(layers[0, :6] > 1e6) and not layers[1:, :6].any()
    assert np.all(short.pop("ledger_residual") < 1e-6)
    for name, x in ((name, full[name]) for name in short):
        scale = np.max(np.abs(np.nan_to_num(x)))
        np.testing.assert_allclose(short[name], x, rtol=1e-3, atol=1e-6 * scale, err_msg=name)


def ample(world: World) -> World:
    """Nothing that a book or an engine could be short of."""
    return replace(world, throughput=0 * world.throughput + AMPLE, take_bound=0 * world.take_bound + 0.99)


def owning(state: State, usd: float) -> State:
    """Every pool has so much."""
    cash = jnp.full_like(state.funds.equity, usd)
    return replace(state, funds=replace(state.funds, cash=Sum.of(cash), equity=cash))


def with_adl(state: State) -> State:
    """The first pool deleverages."""
    return replace(state, funds=replace(state.funds, adl_on=state.funds.adl_on.at[0].set(True)))


LOUD: dict[str, tuple[Callable[[World], World], Callable[[State], State]]] = {
    "engines out of throughput": (lambda w: replace(w, throughput=1e-6 * w.throughput), lambda s: s),
    "beyond the take bound": (lambda w: replace(w, take_bound=1e-6 * w.take_bound), lambda s: s),
    "something waits": (lambda w: w, lambda s: replace(s, queued=s.queued.at[0, 0, 0, 0].set(1.0))),
    "a pool deleverages": (lambda w: w, with_adl),
    "pools are empty": (lambda w: w, lambda s: owning(s, 0.0)),
    "pools are asked for more": (lambda w: w, lambda s: owning(s, 10.0)),
}


@pytest.fixture(scope="module")
def rounds(thin):
    """Quiet rounds from the start, after a fall of 20 % on the first path and one that triggers nothing on the other:
    the state before and after, which are left to full rounds, and how many rounds each has had."""
    world, ladders = thin
    carry, like = open_carry(ladders, world, None, 2, 2)
    exogenous = jnp.log(jnp.asarray([[0.8, 1.0], [0.8, 1.0]], jnp.float32))

    def of(world: World, state: State) -> tuple[State, State, jax.Array, jax.Array]:
        level = jnp.zeros_like(state.quotes.basis)
        now = quotes(exogenous, state.u_local, state.u_global, level, world)
        state = replace(state, quotes=now)
        held = Held(exogenous, jnp.ones_like(exogenous), level, None, None, None, None)
        due = reached(state, held, ladders, world)
        live = jnp.any(due > state.reach, axis=(0, 1, 2, 3))
        after, _, loud, number = quiet_rounds(state, carry.record, held, due, live, like, ladders, world)
        return state, after, loud, number

    compiled = jax.jit(of, compiler_options=QUICKLY)
    return lambda world, state: compiled(world(ample(thin[0])), state(owning(carry.state, AMPLE)))


def test_the_book_takes_all_of_a_fall(rounds):
    before, after, loud, number = rounds(lambda w: w, lambda s: s)
    assert not loud.any()
    assert number[0] > 1 and number[1] == 0
    assert np.any(after.reach[..., 0] > before.reach[..., 0]) and np.all(after.u_local[..., 0] <= 0)
    assert np.any(after.funds.cash.value[:, 0] < AMPLE)


@pytest.mark.parametrize("why", LOUD)
def test_what_is_not_quiet_is_left_to_the_others(rounds, why):
    before, after, loud, number = rounds(*LOUD[why])
    assert list(loud) == [True, False] and list(number) == [0, 0]
    jax.tree.map(np.testing.assert_array_equal, after, before)


@pytest.mark.parametrize(("rows", "columns", "count"), [(30, 64, 300), (90, 16, 400), (3, 5, 4), (32, 7, 300)])
def test_bits_that_are_set_are_listed_column_by_column(rows, columns, count):
    wanted = np.random.default_rng(rows).random((rows, columns)) < 0.3
    row, column, some = set_bits(jnp.asarray(wanted), count)
    expected = np.argwhere(wanted.T)[:count, ::-1]
    assert int(some) == len(expected)
    np.testing.assert_array_equal(np.stack([row, column], axis=1)[: len(expected)], expected)
    assert np.all((row >= 0) & (row < rows) & (column >= 0) & (column < columns))
