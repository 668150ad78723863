"""Cash and coins of all parties balance in 32 bits under stress; a posting left out shows."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import stress_kernels.pools
import stress_kernels.simulate
from reference.bridge import engine
from reference.population import THIN, paths, stressed
from reference.small import market, pool, positions_of, run_of, venue, write_positions

from stress.build import build, on_device


@pytest.mark.parametrize("ranking", ["queue", "pro_rata"])
def test_ledger_balances_under_stress(ranking):
    """Falls of up to 40 %, pools of a tenth: every layer works, and in the worst paths no winner is left."""
    _, built = stressed(pool_usd=THIN, ranking=ranking)
    out = engine(2.5 * paths(), built)
    assert np.all(out["absorbed_volume"].sum(axis=(0, 1, 2, 4)) > 1e8)
    assert out["socialised_loss"].sum() > 1e8
    assert out["ledger_residual"].dtype == np.float32
    assert np.all(out["ledger_residual"] < 1e-6)
    assert np.all(out["status"] == 0)


def test_layers_add_up_under_stress():
    _, built = stressed(pool_usd=THIN)
    out = engine(2.5 * paths(), built)
    closed = out["liquidation_volume"].sum(axis=3)
    np.testing.assert_allclose(out["absorbed_volume"].sum(axis=3), closed, rtol=1e-5, atol=100)
    np.testing.assert_allclose(out["adl_volume"], out["absorbed_volume"][:, :, :, 3], rtol=1e-6)


@pytest.fixture
def crashing(tmp_path):
    """One market, whose longs are bankrupt at -20 % and meet book, auction, pool, winners and the rest."""
    file = tmp_path / "positions.parquet"
    rows = [(0, 0, 1e5, 100.0, 1e6, 1), (0, 0, 1e5, 100.0, 1.3e6, 1), (0, 0, -5e4, 100.0, 2e6, 1)]
    write_positions(file, positions_of(rows, ballast=0), ["one"], ["A"])
    place = venue(
        "one",
        {"A": market(take_bound_bps=20, auction_usd_per_hour=1e6, unwind_usd_per_minute=1e5)},
        pools=[pool(1e6, 3)],
        liquidation_fee_bps=50,
        funding={"interval_hours": 0.25, "interest": 1e-3, "clamp": 1e-2, "cap": 1e-2, "source": "made up"},
    )
    small = {"horizon_hours": 1, "dtype": "float32", "ladder": {"rungs": 512}, "impact": {"i_ref": 0.01}}
    built = build(run_of([place], {"A": 0.025}, file, **small))
    path = np.zeros((60, 1, 2), np.float32)
    path[5:] = np.log(0.885)
    path[20:] = np.log(0.8)
    return path, built


POSTINGS = ("traders_cash", "makers_cash", "rest_cash", "traders", "makers", "rest")


def test_every_party_is_in_the_ledger(crashing, monkeypatch):
    """Without any one of the postings of its trades the ledger of a crash does not balance; with all of them it does.

    Which posting is dropped is an argument of the program, so that all cases share one.
    """
    path, built = crashing
    world, ladders, _ = on_device(built)
    booked = stress_kernels.pools._book_trades
    dropped = None

    def forgetful(stocks, *args):
        after = booked(stocks, *args)
        kept = {
            name: jax.tree.map(
                lambda x, y, i=i: jax.numpy.where(dropped == i, x, y), getattr(stocks, name), getattr(after, name)
            )
            for i, name in enumerate(POSTINGS)
        }
        return replace(after, **kept)

    def simulated(path, ladders, world, which):
        nonlocal dropped
        dropped = which
        return stress_kernels.simulate.simulate(path, ladders, world)

    monkeypatch.setattr(stress_kernels.pools, "_book_trades", forgetful)
    compiled = jax.jit(simulated)
    assert np.all(compiled(path, ladders, world, len(POSTINGS))["ledger_residual"] < 1e-6)
    for i, name in enumerate(POSTINGS):
        residual = compiled(path, ladders, world, i)["ledger_residual"]
        assert np.all(residual > 1e-4), name
