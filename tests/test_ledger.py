"""Cash and coins of all parties balance in 32 bits under stress; a posting left out or booked twice shows."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
import stress_kernels
from reference.bridge import engine
from reference.population import THIN, paths, stressed
from reference.small import market, pool, positions_of, run_of, venue, write_positions
from stress_kernels.money import Sum
from stress_kernels.simulate import simulate

from stress.build import build, on_device


@pytest.mark.parametrize("ranking", ["queue", "pro_rata", "water_filling"])
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


BOUND = 1e-6
"""Largest residual of a ledger that balances."""
Site = tuple[str, int, int]
"""Module, and the line and column at which a call ends."""


def postings() -> Iterator[tuple[Site, str]]:
    """Every posting in the source of the kernels, that is every call of `Sum.add`: where it stands and how it reads."""
    for file in sorted(Path(str(stress_kernels.__file__)).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add":
                if isinstance(node.func.value, ast.Subscript):  # x.at[i].add(y)
                    continue
                stock, amount = ast.unparse(node.func.value).split(".add(")[0], ast.unparse(node.args[0])
                end = (node.end_lineno or 0, node.end_col_offset or 0)
                yield (file.stem, *end), f"{file.stem}: {stock} += {amount}"


POSTINGS = dict(postings())


def caller() -> Site:
    """Where the function was called that asks."""
    frame = sys._getframe(2)
    _, line, _, column = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    return Path(frame.f_code.co_filename).stem, line or 0, column or 0


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    """The ledger's residual in a crash, every posting booked so many times; one compiled program for all cases.

    Longs are bankrupt at -20 % and meet book, auction, pool and winners. At one venue there are too few winners, and
    the rest takes what is left; at the other they are closed at the mark, and the pool cannot pay all deficits.
    """
    file = tmp_path_factory.mktemp("crash") / "positions.parquet"
    longs = [(v, 0, 1e5, 100.0, margin, 1) for v in (0, 1) for margin in (1e6, 1.3e6)]
    shorts = [(0, 0, -5e4, 100.0, 2e6, 1), (1, 0, -2e5, 100.0, 8e6, 1)]
    write_positions(file, positions_of(longs + shorts, ballast=0), ["few", "many"], ["A"])
    rules = {
        "markets": {"A": market(take_bound_bps=20, auction_usd_per_hour=1e6, unwind_usd_per_minute=1e5)},
        "liquidation_fee_bps": 50,
        "funding": {"interval_hours": 0.25, "interest": 1e-2, "clamp": 1e-2, "cap": 1e-2, "source": "made up"},
    }
    at_mark = {"ranking": "queue", "close_at": "mark", "drawdown_window_hours": 8}
    places = [venue("few", pools=[pool(1e6, 3)], **rules), venue("many", pools=[pool(1e4)], adl=at_mark, **rules)]
    small = {"horizon_hours": 1, "dtype": "float32", "ladder": {"rungs": 512}, "impact": {"i_ref": 0.01}}
    world, ladders, _ = on_device(build(run_of(places, {"A": 0.025}, file, **small)))
    path = np.zeros((60, 1, 2), np.float32)
    path[5:] = np.log(0.885)
    path[20:] = np.log(0.8)

    add, sites, booked = Sum.add, list(POSTINGS), set()

    def simulated(path, ladders, world, times):
        def add_times(self, x):
            site = caller()
            booked.add(site)
            return add(self, times[sites.index(site)] * x)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Sum, "add", add_times)
            return simulate(path, ladders, world)["ledger_residual"]

    compiled = jax.jit(simulated)

    def of(times: np.ndarray) -> np.ndarray:
        found = jax.device_get(compiled(path, ladders, world, times))
        assert booked == set(sites)
        return found

    return of


def test_ledger_of_a_crash_balances(residual):
    assert np.all(residual(np.ones(len(POSTINGS), np.float32)) < BOUND)


@pytest.mark.parametrize("times", [0, 2], ids=["left out", "booked twice"])
@pytest.mark.parametrize("which", range(len(POSTINGS)), ids=list(POSTINGS.values()))
def test_every_posting_is_needed_once(residual, which, times):
    """Trades, fees, takeovers and their unwinding, deficits, socialised losses, funding."""
    changed = np.ones(len(POSTINGS), np.float32)
    changed[which] = times
    assert np.all(residual(changed) > 100 * BOUND)
