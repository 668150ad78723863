"""What must not change a path: how many others there are, how they are cut into chunks, how many devices share them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from reference.bridge import engine
from reference.population import paths, stressed
from reference.small import crowd, market, pool, positions_of, run_of, venue, write_positions
from stress_kernels.ladder import TOP

from stress.build import build
from stress.config import Run
from stress.portfolio import Positions

DEVICES = """
import sys
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
import numpy as np
from stress.config import Run
from stress.devices import Devices, prepare
from stress.run import Simulation
prepare()
both = tuple(jax.devices("cpu"))
assert len(both) == 2
text, out = open(sys.argv[1]).read(), sys.argv[2]
for name, chunk, devices in (("one", 16, both[:1]), ("two", 48, both)):
    run = Run.model_validate_json(text).model_copy(update={"chunk": chunk})
    parts = dict(Simulation.of(run, Devices("cpu", devices)).chunks(list(range(48 // chunk))))
    whole = {k: np.concatenate([parts[i][k] for i in sorted(parts)]) for k in parts[0]}
    np.savez(f"{out}/{name}.npz", **whole)
"""


def one_market(tmp_path: Path, positions: Positions, **changes) -> Run:
    """One market in 32 bits, an hour of a diffusion of 50 % a day, every layer at work."""
    file = tmp_path / "positions.parquet"
    write_positions(file, positions, ["one"], ["A"])
    layers = market(take_bound_bps=50, auction_usd_per_hour=2e6, unwind_usd_per_minute=1e5)
    place = venue("one", {"A": layers}, pools=[pool(1e6, 2)], liquidation_fee_bps=50)
    wild = {"kind": "gbm", "daily_volatility": {"A": 0.5}, "correlation": 0.0}
    base = {"horizon_hours": 1, "dtype": "float32", "impact": {"i_ref": 0.01}, "shock": wild, "chunk": 16}
    return run_of([place], {"A": 0.05}, file, **(base | changes))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """The same 48 paths in three chunks of 16 on one device, and in one chunk shared by two, 24 each."""
    folder = tmp_path_factory.mktemp("devices")
    run = one_market(folder, positions_of(crowd(np.random.default_rng(3), [(0, 0)])))
    (folder / "run.json").write_text(run.model_dump_json())
    command = [sys.executable, "-W", "error", "-c", DEVICES, str(folder / "run.json"), str(folder)]
    subprocess.run(command, check=True, timeout=300)
    return {file.stem: dict(np.load(file)) for file in sorted(folder.glob("*.npz"))}


def test_chunks_and_devices_change_no_bit(outputs):
    one, two = outputs["one"], outputs["two"]
    assert one["absorbed_volume"].sum(axis=(0, 1, 2, 3)).min() > 0
    for name, value in one.items():
        np.testing.assert_array_equal(two[name], value, err_msg=name)


def test_paths_differ(outputs):
    assert len(np.unique(outputs["one"]["index_close"])) == 48


def test_count_is_copies(tmp_path):
    """A row with `count = 3` compiles to the tables of three rows; the largest 1 % alone is taken row by row."""
    once = positions_of(crowd(np.random.default_rng(4), [(0, 0)]))
    again = np.repeat(np.arange(len(once)), once.count.astype(int))
    columns = {name: getattr(once, name)[again] for name in ("venue", "asset", "quantity", "entry_price", "margin")}
    copies = Positions(**columns, count=np.ones(len(again)))
    assert len(copies) > len(once)
    one, many = (build(one_market(tmp_path, p, dtype="float64")).book for p in (once, copies))
    assert one.accounts == many.accounts
    assert one.long_usd == pytest.approx(many.long_usd)
    for name in ("depth", "log_margin", "partial", "trigger_rate"):
        np.testing.assert_allclose(getattr(one.ladders, name), getattr(many.ladders, name), rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(one.ladders.rows[..., :TOP], many.ladders.rows[..., :TOP], rtol=1e-12, atol=1e-6)


def test_an_account_without_leverage_is_never_liquidated(tmp_path):
    """Leverage below 1: no price above 0 liquidates it, also in a book whose every trigger has a rung of its own."""
    rows = [(0, 0, 1e4, 100.0, 2e6, 1), (0, 0, 1e4, 100.0, 1e5, 1)]
    book = build(one_market(tmp_path, positions_of(rows))).book
    assert book.exact
    assert book.long_usd == pytest.approx(2e6)


def test_more_rows_keep_the_totals():
    """Four times the rows of the population. Measured: the mildest path moves by 3.3 %, the others below 0.5 %."""
    volumes = [
        engine(paths(), stressed(rows)[1])["liquidation_volume"].sum(axis=(0, 1, 2, 3)) for rows in (6000, 24000)
    ]
    np.testing.assert_allclose(volumes[1], volumes[0], rtol=0.05)
    np.testing.assert_allclose(volumes[1][1:], volumes[0][1:], rtol=0.01)


def test_replayed_path_is_the_file(tmp_path):
    """A replay moves the index through the closes of the file, to the rounding of 32 bits."""
    import jax

    rng = np.random.default_rng(5)
    close = (100 * np.exp(np.cumsum(rng.normal(0, 1e-3, 61)))).tolist()
    lines = ["time,open,high,low,close"]
    for i, (o, c) in enumerate(zip([100.0, *close], close, strict=False)):
        lines.append(f"2024-01-01T{i // 60:02d}:{i % 60:02d}:00Z,{o},{max(o, c)},{min(o, c)},{c}")
    (tmp_path / "A.csv").write_text("\n".join(lines) + "\n")
    replay = {"kind": "replay", "start": "2024-01-01T00:00:00Z", "pin_index": True}
    positions = positions_of(crowd(rng, [(0, 0)]))
    built = build(one_market(tmp_path, positions, shock=replay, prices={"dir": str(tmp_path)}))
    keys = jax.vmap(jax.random.key)(np.arange(2))
    drawn = np.asarray(built.shock.paths(keys))
    assert built.start_price[0] == pytest.approx(100)
    assert drawn.shape == (60, 1, 2)
    np.testing.assert_allclose(drawn[:, 0], np.log(np.array(close[:60]) / 100)[:, None].repeat(2, 1), atol=1e-7)
    assert built.world.impact.index_weight == 0
