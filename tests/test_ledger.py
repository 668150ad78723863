"""Cash and coins of all parties balance in 32 bits under stress; a posting left out or booked twice shows."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stress_kernels
from reference.bridge import engine
from reference.population import THIN, paths, stressed
from reference.small import market, pool, run_of, venue
from stress_kernels.money import Sum
from stress_kernels.simulate import simulate

from stress.build import build
from stress.config import Run


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
    """Every posting in the source of the kernels: where it stands and how it reads.

    That is every call of `Sum.add`, and of `receive`, which puts amounts into the currency of each market. Those of the
    fast kernels are compared with these in `test_fast.py`: residual, stocks and funds.
    """
    for file in sorted(Path(str(stress_kernels.__file__)).parent.rglob("*.py")):
        if file.stem.startswith("chip"):
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        inside = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and f.name == "receive"]
        skipped = {id(node) for f in inside for node in ast.walk(f)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and id(node) not in skipped:
                if node.func.attr not in ("add", "receive") or isinstance(node.func.value, ast.Subscript):
                    continue  # x.at[i].add(y)
                stock, amount = ast.unparse(node.func.value).split(".add(")[0], ast.unparse(node.args[0])
                end = (node.end_lineno or 0, node.end_col_offset or 0)
                yield (file.stem, *end), f"{file.stem}: {stock} += {amount}"


SOURCE = Path(str(stress_kernels.__file__)).parent
POSTINGS = dict(postings())


def caller() -> Site:
    """Where the posting was made that asks: the call of `receive`, or that of `Sum.add`."""
    frame = sys._getframe(2)
    if frame.f_code.co_name == "receive":
        frame = frame.f_back
        while frame is not None and Path(frame.f_code.co_filename).parent != SOURCE:  # checks of shapes are between
            frame = frame.f_back
    assert frame is not None
    _, line, _, column = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    return Path(frame.f_code.co_filename).stem, line or 0, column or 0


CRASH = {
    "liquidation_fee_bps": 50,
    "funding": {"interval_hours": 0.25, "interest": 1e-2, "clamp": 1e-2, "cap": 1e-2, "source": "made up"},
}
THIN_BOOK = {"take_bound_bps": 20, "auction_usd_per_hour": 1e6, "unwind_usd_per_minute": 1e5}
POSITIONS = """venue,account,asset,quantity,entry_price,margin,mode
few,1,A,100000,100,1000000,isolated
few,2,A,100000,100,1300000,isolated
few,3,A,-50000,100,2000000,isolated
many,1,A,100000,100,1000000,isolated
many,2,A,100000,100,1300000,isolated
many,3,A,-200000,100,8000000,isolated
vault,1,A,100000,100,,cross
vault,2,B,10000000,100,,cross
vault,3,B,-5000000,100,,cross
vault,4,A,-400000,100,,cross
vault,5,B,10000000,100,,cross
"""
COLLATERAL = """venue,account,token,amount
vault,1,B,10500
vault,2,B,11000
vault,3,B,90000
vault,4,USD,16000000
vault,5,B,16000
vault,5,USD,-10000
"""
"""Accounts that owe USD and pay it from coins; that owe coins; that win in either."""


def crash_run(folder: Path) -> Run:
    """A crash in which longs are bankrupt and meet book, auction, pool, vault and winners.

    At one venue there are too few winners, and the rest takes what is left; at another they are closed at the mark, and
    the pool cannot pay all deficits. At the third a vault stands behind the pools, one market is inverse, accounts have
    coins, and one pool tops up the other. Before the fall one account loses money elsewhere; on the way down stop
    orders at a support level are executed; after it holders close, and others open.
    """
    (folder / "positions.csv").write_text(POSITIONS)
    (folder / "collateral.csv").write_text(COLLATERAL)
    thin, at_mark = market(**THIN_BOOK), {"ranking": "queue", "close_at": "mark", "drawdown_window_hours": 8}
    inverse = thin | {"contract": "inverse"}
    pools = [pool(5e4, 1, markets=["A"], topped_up_by="B", floor_usd=1e5), pool(2e6, 0.2, name="B", markets=["B"])]
    backstop = {"equity_usd": 3e6, "capacity_usd": 2e6, "unwind_usd_per_minute": 2e4, "source": "made up"}
    places = [
        venue("few", {"A": thin}, pools=[pool(1e6, 3)], **CRASH),
        venue("many", {"A": thin}, pools=[pool(1e4)], adl=at_mark, **CRASH),
        venue("vault", {"A": thin, "B": inverse}, pools=pools, vault=backstop, adl=at_mark, **CRASH),
    ]
    small = {"horizon_hours": 1, "dtype": "float32", "ladder": {"rungs": 512}, "impact": {"i_ref": 0.01}}
    files = {"portfolio": {"positions": str(folder / "positions.csv"), "collateral": str(folder / "collateral.csv")}}
    loss = {"kind": "default", "venue": "few", "positions": {"A": 1e5}, "equity_usd": 5e6, "loss_usd": 4e6}
    off = [loss | {"start_minutes": 2}, {"kind": "support", "asset": "A", "move": -0.05, "usd": 1e6}]
    after = {"move": 3, "minutes": 5, "per_hour": 0.05, "calm_minutes": 30, "source": "made up"}
    fresh = {
        "per_day": 0.1, "held_hours": 0.5, "least_leverage": 5, "most_leverage": 20, "account_usd": 1e4,
        "levels": 16, "source": "made up",
    }  # fmt: skip
    more = {"behaviour": {"deleveraging": after, "inflow": fresh | {"cohorts": 2}}, **small, **files}
    return run_of(places, {"A": 0.025, "B": 0.025}, None, overlays=off, **more)


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    """The ledger's residual in a crash, every posting booked so many times; one compiled program for all cases."""
    built = build(crash_run(tmp_path_factory.mktemp("crash")))
    fixed = jax.tree.map(jnp.asarray, (built.ladders, built.world, built.accounts))
    path = np.zeros((60, 2, 2), np.float32)
    path[5:] = np.log(0.885)
    path[20:] = np.log(0.8)

    add, sites, booked = Sum.add, list(POSTINGS), set()

    def simulated(path, fixed, times):
        def add_times(self, x):
            site = caller()
            booked.add(site)
            return add(self, times[sites.index(site)] * x)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Sum, "add", add_times)
            return simulate(path, *fixed)["ledger_residual"]

    compiled = jax.jit(simulated)

    def of(times: np.ndarray) -> np.ndarray:
        found = jax.device_get(compiled(path, fixed, times))
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
