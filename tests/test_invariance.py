"""What must not change a path: how many others there are, how they are cut into chunks, how many devices share them."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from reference.bridge import engine
from reference.population import paths, stressed
from reference.small import crowd, market, pool, positions_of, run_of, venue, write_positions
from stress_kernels.simulate import path_keys, simulate

from stress.build import build, on_device
from stress.config import Run
from stress.devices import Devices
from stress.portfolio import Positions
from stress.run import Simulation

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
text, out, paths, state = open(sys.argv[1]).read(), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
import stress.cross
stress.cross.STATE_BYTES = state
stress.cross.BLOCK = 16
for name, chunk, devices in (("one", 16, both[:1]), ("whole", paths, both[:1]), ("two", paths, both)):
    run = Run.model_validate_json(text).model_copy(update={"chunk": chunk})
    simulation = Simulation.of(run, Devices("cpu", devices))
    assert simulation.devices.all == devices
    parts = dict(simulation.chunks(list(range(paths // chunk))))
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


def on_one_and_two(run: Run, folder: Path, paths: int, state_bytes: int) -> dict[str, dict[str, np.ndarray]]:
    """The same paths in chunks of 16 on one device, in one chunk on one, and in one chunk shared by two.

    Args:
        run: To simulate.
        folder: For what passes between the processes.
        paths: How many.
        state_bytes: What the state of accounts on cross margin may take.
    """
    (folder / "run.json").write_text(run.model_dump_json())
    given = [str(folder / "run.json"), str(folder), str(paths), str(state_bytes)]
    subprocess.run([sys.executable, "-W", "error", "-c", DEVICES, *given], check=True, timeout=300)
    return {file.stem: dict(np.load(file)) for file in sorted(folder.glob("*.npz"))}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """64 paths of isolated positions in blocks of 16: on two devices 32 each."""
    folder = tmp_path_factory.mktemp("devices")
    run = one_market(folder, positions_of(crowd(np.random.default_rng(3), [(0, 0)])))
    return on_one_and_two(run, folder, 64, 2**28)


def cross_market(folder: Path) -> Run:
    """150 accounts on cross margin with a position in one or both of two markets, in 32 bits."""
    rng, rows, posted = np.random.default_rng(5), [], []
    for i in range(150):
        usd = rng.lognormal(13.5, 1, 2) * rng.choice([-1, 1], 2) * (rng.random(2) < [1, 0.8])
        rows += [f"one,{i},{asset},{x / 100!r},100,,cross,2" for asset, x in zip("AB", usd.tolist(), strict=True) if x]
        posted.append(f"one,{i},USD,{float(np.abs(usd).sum()) / rng.uniform(3, 25)!r}")
    header = "venue,account,asset,quantity,entry_price,margin,mode,count"
    (folder / "positions.csv").write_text("\n".join([header, *rows, ""]))
    (folder / "collateral.csv").write_text("\n".join(["venue,account,token,amount", *posted, ""]))
    layers = market(take_bound_bps=50, auction_usd_per_hour=2e6, throughput_usd_per_minute=2e6)
    place = venue("one", {"A": layers, "B": layers}, pools=[pool(1e9, 3)], liquidation_fee_bps=50)
    wild = {"kind": "gbm", "daily_volatility": {"A": 0.5, "B": 0.6}, "correlation": 0.5}
    files = {"positions": str(folder / "positions.csv"), "collateral": str(folder / "collateral.csv")}
    return run_of(
        [place], {"A": 0.05, "B": 0.06}, None, portfolio=files, shock=wild, horizon_hours=1, dtype="float32",
        impact={"i_ref": 0.01}, barrier_correction=True, chunk=16,
    )  # fmt: skip


def test_chunks_change_no_bit(outputs):
    one, whole = outputs["one"], outputs["whole"]
    assert one["absorbed_volume"].sum(axis=(0, 1, 2, 3)).min() > 0
    for name, value in one.items():
        np.testing.assert_array_equal(whole[name], value, err_msg=name)


def test_devices_change_last_bits_of_few_paths(outputs):
    """For two devices the compiler rounds otherwise here and there: on 2 of these 64 paths."""
    one, two, differ = outputs["one"], outputs["two"], np.zeros(64, bool)
    for name, value in one.items():
        if name == "ledger_residual":
            continue  # is itself rounding
        differ |= np.any((two[name] != value).reshape(64, -1) & ~np.isnan(value).reshape(64, -1), axis=1)
        scale = one["fund_equity"] if name == "fund_drawdown" else value  # a difference of equities
        np.testing.assert_allclose(two[name], value, rtol=1e-6, atol=1e-6 * np.nanmax(np.abs(scale), initial=0.0))
    assert differ.mean() < 0.1


def test_chunks_change_no_bit_of_accounts_on_cross_margin(tmp_path):
    """64 paths in blocks of 16, the fewest, because the accounts may take next to no memory: on two devices 32 each.

    Between one device and two the compiler rounds last bits otherwise, which here add up to 1e-6 of an hour's volume.
    """
    run = cross_market(tmp_path)
    built = build(run)
    assert built.accounts is not None
    assert built.book.accounts > 0
    outputs = on_one_and_two(run, tmp_path, 64, 1)
    one, whole, two = outputs["one"], outputs["whole"], outputs["two"]
    assert one["absorbed_volume"].sum(axis=(0, 1, 2, 3))[:3].min() > 0
    assert len(np.unique(one["accounts_liquidated"])) > 1
    assert set(np.unique(one["status"])) == {0}
    for name, value in one.items():
        np.testing.assert_array_equal(whole[name], value, err_msg=name)
        if name == "ledger_residual":
            continue  # is itself rounding
        size = one["fund_equity"] if name == "fund_drawdown" else value  # a difference of equities of a billion
        scale = float(np.nanmax(np.abs(size), initial=0.0))
        np.testing.assert_allclose(two[name], value, rtol=3e-6, atol=3e-6 * scale, err_msg=name)


@pytest.mark.parametrize("room", [8, 1], ids=["room for all", "some wait for room"])
def test_paths_that_share_a_round_do_not_meet(room, tmp_path, monkeypatch):
    """Alone, by five or all together, with fewer rounds than many steps ask for: a path has its rounds and no more.

    Four ladders a path, of which two are mostly swept together: with room for one a path, paths have to wait.
    """
    monkeypatch.setattr("stress_kernels.ladder_lanes._SWEPT", room)
    file = tmp_path / "positions.parquet"
    write_positions(file, positions_of(crowd(np.random.default_rng(6), [(0, 0), (1, 0)])), ["one", "two"], ["A"])
    places = [venue(name, {"A": market(take_bound_bps=50)}, pools=[pool(1e6, 2)]) for name in ("one", "two")]
    wild = {"kind": "gbm", "daily_volatility": {"A": 0.5}, "correlation": 0.0}
    run = run_of(places, {"A": 0.05}, file, horizon_hours=1, rounds=2, impact={"i_ref": 0.01}, shock=wild)
    with jax.enable_x64(True):
        world, ladders, shock = on_device(build(run))
        log = jax.jit(shock.paths)(path_keys(jax.numpy.uint32(1), jax.numpy.int32(0), 16))

        def together(lanes: int) -> dict[str, np.ndarray]:
            # A function of its own, as what was traced with other room is not to be used again.
            return jax.device_get(jax.jit(lambda *given: simulate(*given))(log, ladders, replace(world, lanes=lanes)))

        alone, others = together(1), {5: together(5), 16: together(16)}
    assert np.all(alone["liquidation_volume"].sum(axis=(0, 1, 2, 3)) > 0)
    for name, value in alone.items():
        for lanes, other in others.items():
            if name != "ledger_residual":  # is itself rounding
                np.testing.assert_allclose(other[name], value, rtol=1e-9, atol=1e-6, err_msg=f"{lanes}: {name}")


def test_paths_differ(outputs):
    assert len(np.unique(outputs["one"]["index_close"])) == 64


def test_count_is_copies(tmp_path):
    """A row with `count = 3` compiles to the tables of three rows."""
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
    np.testing.assert_allclose(one.ladders.rows, many.ladders.rows, rtol=1e-12, atol=1e-6)


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


def test_a_device_that_takes_a_whole_chunk_at_once_gives_the_same_paths(tmp_path):
    """As a GPU does: all paths of a chunk in one block, and in each round."""
    run = one_market(tmp_path, positions_of(crowd(np.random.default_rng(3), [(0, 0)])), chunk=64, paths=64)
    cpu = Devices("cpu", tuple(jax.devices("cpu")[:1]))
    apart, whole = (Simulation.of(run, replace(cpu, kind=kind)).chunk(0) for kind in ("cpu", "gpu"))
    assert apart["liquidation_volume"].sum() > 0
    for name, value in apart.items():
        if name != "ledger_residual":  # is itself rounding
            scale = float(np.nanmax(np.abs(value), initial=0.0))
            np.testing.assert_allclose(whole[name], value, rtol=1e-5, atol=1e-6 * scale, err_msg=name)
