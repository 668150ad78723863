"""Shocks that draw hours from price files: which hours, how they are joined, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from conftest import write_small
from stress_kernels.shocks import blocks, garch
from stress_kernels.simulate import path_keys

from stress.build import build
from stress.config import load_config
from stress.digests import digest, price_files
from stress.history import conditional_variance, garch_tables, hours_of
from stress.recorded import Garch
from stress.spec import InputError, validate

START = 1621382400  # 2021-05-19T00:00:00Z
HOURS, EACH, PATHS = 400, 4, 256
WEIGHTS = {"alpha": {"BTC": 0.1, "ETH": 0.2}, "gamma": {"BTC": 0.1, "ETH": 0.0}, "beta": {"BTC": 0.8, "ETH": 0.7}}
WINDOW = {"start": "2021-05-19T00:00:00Z", "until": "2021-06-04T16:00:00Z"}
BLOCKS = {"kind": "block_bootstrap", **WINDOW, "block_hours": 5.0}
GARCH = {"kind": "garch", **WINDOW, "daily_volatility": {"BTC": 0.05, "ETH": 0.06}, **WEIGHTS}


def _hours(seed: int = 1, hours: int = HOURS) -> np.ndarray:
    """Log index within hours, (hour step a): heavy-tailed moves, of two assets alike."""
    rng = np.random.default_rng(seed)
    moves = rng.standard_t(5, (hours, EACH, 1)) + rng.standard_t(5, (hours, EACH, 2))
    return np.cumsum(0.004 * moves, axis=1)


def _files(folder: Path, seconds: int = 900, name: str = "{}.parquet") -> Path:
    """Price files of 400 hours whose closes are those of `_hours`."""
    folder.mkdir(exist_ok=True)
    moves = np.diff(_hours(), axis=1, prepend=0.0).reshape(-1, 2)
    bars = len(moves) * 900 // seconds
    for a, asset in enumerate(("BTC", "ETH")):
        close = 100 * np.exp(np.cumsum(moves[:, a]))[seconds // 900 - 1 :: seconds // 900]
        open_ = np.concatenate([[100.0], close[:-1]])
        columns = {"open": open_, "high": np.maximum(open_, close), "low": np.minimum(open_, close), "close": close}
        time = START + seconds * np.arange(bars, dtype=np.int64)
        pyarrow.parquet.write_table(pa.table({"time": time, **columns}), folder / name.format(asset))
    return folder


Load = Callable[..., Any]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """A small run whose shock draws from price files."""
    config, prices = write_small(tmp_path), _files(tmp_path / "prices")

    def run(shock: dict[str, Any], **given: Any) -> Any:
        return load_config(config, prices=prices, overrides={"shock": shock, "step_seconds": 900, **given})

    return run


def _drawn(params: blocks.Blocks, hours: int) -> np.ndarray:
    keys = path_keys(jnp.uint32(2), jnp.int32(0), PATHS)
    return np.asarray(blocks.followed(params, blocks.numbers(params, keys, hours * params.log.shape[1])))


def _paths(module: Any, params: Any, hours: int, count: int = PATHS) -> np.ndarray:
    keys = path_keys(jnp.uint32(2), jnp.int32(0), count)
    return np.asarray(jax.jit(module.paths, static_argnums=2)(params, keys, hours * EACH), np.float64)


def test_blocks_are_of_geometric_length_and_start_anywhere() -> None:
    table = jnp.asarray(_hours(), jnp.float32)
    rows = _drawn(blocks.Blocks(table, jnp.float32(0.2)), 48)
    goes_on = rows[1:] == (rows[:-1] + 1) % HOURS
    share = 0.8 + 0.2 / HOURS
    assert abs(goes_on.mean() - share) < 4 * np.sqrt(share * (1 - share) / goes_on.size)
    runs = goes_on[:-1] & ~goes_on[1:]  # no memory: a block that has gone on is no likelier to end
    assert abs(runs.sum() / goes_on[:-1].sum() - 0.2) < 0.02
    counts = np.histogram(_drawn(blocks.Blocks(table, jnp.float32(1.0)), 48), bins=20, range=(0, HOURS))[0]
    expected = 48 * PATHS / 20
    assert np.sum((counts - expected) ** 2 / expected) < 43.8  # 0.1 % of a chi-square of 19


def test_a_path_is_made_of_whole_recorded_hours() -> None:
    hours = _hours()
    params = blocks.Blocks(jnp.asarray(hours, jnp.float32), jnp.float32(0.2))
    log, rows = _paths(blocks, params, 12), _drawn(params, 12)
    for p in (0, 1, PATHS - 1):
        moves = np.concatenate([np.diff(hours[row], axis=0, prepend=0.0) for row in rows[:, p]])
        assert log[:, :, p] == pytest.approx(np.cumsum(moves, axis=0), abs=2e-7)
    assert (_paths(blocks, params, 12, 64) == log[:, :, :64]).all()


def test_a_block_of_everything_is_a_replay_from_a_random_start() -> None:
    hours = _hours()
    params = blocks.Blocks(jnp.asarray(hours, jnp.float32), jnp.float32(0.0))
    log, first = _paths(blocks, params, 24), _drawn(params, 1)[0]
    whole = np.cumsum(np.diff(hours, axis=1, prepend=0.0).reshape(-1, 2), axis=0)
    twice = np.concatenate([np.zeros((1, 2)), whole, whole[-1] + whole])
    assert len(np.unique(first)) > PATHS / 2
    for p in range(PATHS):
        begin = first[p] * EACH
        assert log[:, :, p] == pytest.approx(twice[begin + 1 : begin + 97] - twice[begin], abs=3e-7)


def test_recorded_volatility_is_the_recursion() -> None:
    returns = _hours()[:, -1, 0]
    found = conditional_variance(returns, 1e-4, 0.1, 0.08, 0.8)
    h = 1e-4
    for r, variance in zip(returns, found, strict=False):
        assert variance == pytest.approx(h, rel=1e-12)
        h = 1e-4 * (1 - 0.1 - 0.04 - 0.8) + (0.1 + (0.08 if r < 0 else 0.0)) * r**2 + 0.8 * h
    assert found[-1] == pytest.approx(h, rel=1e-12) and len(found) == len(returns) + 1


def _garch(**given: Any) -> tuple[Garch, garch.Garch, np.ndarray]:
    """A spec, its tables, and the recorded hours."""
    spec, hours = validate(Garch, GARCH | given, "garch"), _hours()
    residuals, start = garch_tables(spec, hours, ["BTC", "ETH"])
    weights = [np.array([table[a] for a in ("BTC", "ETH")]) for table in (spec.alpha, spec.gamma, spec.beta)]
    long_run = np.array([spec.daily_volatility[a] ** 2 / 24 for a in ("BTC", "ETH")])
    omega = long_run * (1 - weights[0] - weights[1] / 2 - weights[2])
    drawn = blocks.Blocks(jnp.asarray(residuals, jnp.float32), jnp.float32(1.0))
    arrays = [jnp.asarray(x, jnp.float32) for x in (omega, *weights, start)]
    return spec, garch.Garch(drawn, *arrays), hours


def test_filtered_history_goes_on_as_the_recursion_says() -> None:
    _, params, _ = _garch(begin="last_hour")
    log, rows = _paths(garch, params, 12), _drawn(params.residuals, 12)
    table, omega = np.asarray(params.residuals.log, np.float64), np.asarray(params.omega, np.float64)
    alpha, gamma, beta = (np.asarray(x, np.float64) for x in (params.alpha, params.gamma, params.beta))
    assert params.start.shape == (1, 2)
    for p in (0, 7, PATHS - 1):
        h, level, expected = np.asarray(params.start[0], np.float64), np.zeros(2), []
        for row in rows[:, p]:
            within = np.sqrt(h) * table[row]
            expected.append(level + within)
            level, r = level + within[-1], within[-1]
            h = omega + np.where(r < 0, alpha + gamma, alpha) * r**2 + beta * h
        assert log[:, :, p] == pytest.approx(np.concatenate(expected), rel=1e-4, abs=1e-6)
    assert (_paths(garch, params, 12, 64) == log[:, :, :64]).all()


def test_filtered_history_without_memory_is_hours_redrawn_one_by_one() -> None:
    none = {"alpha": {"BTC": 0, "ETH": 0}, "gamma": {"BTC": 0, "ETH": 0}, "beta": {"BTC": 0, "ETH": 0}}
    sd = np.sqrt(24 * np.mean(_hours()[:, -1] ** 2, axis=0))
    _, params, hours = _garch(**none, daily_volatility={"BTC": sd[0], "ETH": sd[1]})
    plain = blocks.Blocks(jnp.asarray(hours, jnp.float32), jnp.float32(1.0))
    assert _paths(garch, params, 12) == pytest.approx(_paths(blocks, plain, 12), abs=5e-7)


def test_filtered_history_keeps_its_volatility_and_its_tails() -> None:
    _, params, hours = _garch()
    returns = np.diff(_paths(garch, params, 48, 8192)[EACH - 1 :: EACH], axis=0, prepend=0.0)[1:]
    sd = np.sqrt(24 * np.mean(returns[-8:] ** 2, axis=(0, 2)))  # after 40 hours the start is forgotten
    assert sd == pytest.approx([0.05, 0.06], rel=0.05)
    z = np.asarray(params.residuals.log[:, -1], np.float64)
    assert np.mean(z**2, axis=0) == pytest.approx([1, 1], rel=1e-4)
    kurtosis = np.mean(returns[-8:] ** 4, axis=(0, 2)) / np.mean(returns[-8:] ** 2, axis=(0, 2)) ** 2
    assert (kurtosis > 1.1 * np.mean(z**4, axis=0)).all()
    squares = returns**2
    memory = [np.corrcoef(squares[-2, a], squares[-1, a])[0, 1] for a in range(2)]
    assert min(memory) > 5 / np.sqrt(8192)
    recorded = np.corrcoef(hours[:, -1].T)[0, 1]
    assert np.corrcoef(returns[-1])[0, 1] == pytest.approx(recorded, abs=0.08)


def test_hours_are_cut_from_prices() -> None:
    log = np.cumsum(np.arange(18.0)).reshape(9, 2)
    assert hours_of(log, 4).shape == (2, 4, 2)
    assert hours_of(log, 4)[1, 3] == pytest.approx(log[8] - log[4])


@pytest.mark.parametrize("shock", [BLOCKS, GARCH], ids=["block_bootstrap", "garch"])
def test_a_run_draws_from_its_price_files(load: Load, shock: dict[str, Any]) -> None:
    run = load(shock, horizon_hours=6)
    built = build(run)
    assert (built.start_price == [100, 10]).all()  # those of the config, not of the files
    assert float(np.abs(np.asarray(built.world.barrier_shift)).max()) == 0
    shock_tables = jax.tree.map(jnp.asarray, built.shock)
    log = np.asarray(shock_tables.paths(path_keys(jnp.uint32(1), jnp.int32(0), 16)))
    assert log.shape == (24, 2, 16) and len(np.unique(log[-1, 0])) == 16
    if shock is BLOCKS:
        table = np.asarray(built.shock.blocks.log if built.shock.blocks else None)
        assert table == pytest.approx(_hours(), abs=1e-6)
        halved = build(load({**shock, "scale": 0.5}, horizon_hours=6)).shock.blocks
        assert halved is not None and np.asarray(halved.log) == pytest.approx(_hours() / 2, abs=1e-6)
    assert set(price_files(run)) == {"BTC", "ETH"}
    before = digest(run)
    table = pyarrow.parquet.read_table(price_files(run)["BTC"])
    pyarrow.parquet.write_table(table.slice(0, table.num_rows - 1), price_files(run)["BTC"])
    assert digest(run) != before


def test_bars_may_be_longer_than_steps(load: Load, tmp_path: Path) -> None:
    _files(tmp_path / "prices", seconds=3600)
    table = build(load(BLOCKS, horizon_hours=6)).shock.blocks
    assert table is not None
    assert np.asarray(table.log)[:, -1] == pytest.approx(_hours()[:, -1], abs=1e-6)


@pytest.mark.parametrize(
    ("shock", "message"),
    [
        ({**BLOCKS, "until": "2021-05-19T05:00:00Z"}, r"shock.until is '2021-05-19T05:00:00Z', 5 h after shock.start, "
         r"expected whole hours and no fewer than the 6 h of the run"),
        ({**BLOCKS, "until": "2021-05-19T08:30:00Z"}, "8.5 h after shock.start, expected whole hours"),
        ({**GARCH, "until": "2021-06-05"}, "covers 2021-05-19T00:00:00Z to 2021-06-04T16:00:00Z, expected "
         "2021-05-19T00:00:00Z to 2021-06-06T00:00:00Z. Change shock.start or shock.until"),
        ({"kind": "replay", "start": "2021-06-04T11:00:00Z"}, "covers .* expected 2021-06-04T11:00:00Z to "
         "2021-06-04T17:00:00Z. Change shock.start or horizon_hours"),
        ({**BLOCKS, "block_hours": 0.5}, "shock.block_hours is 0.5, expected greater than or equal to 1"),
        ({**BLOCKS, "inside_bars": "worst"}, "shock.inside_bars is 'worst', expected 'by_close', 'low_first'"),
        ({**GARCH, "beta": {"BTC": 0.9, "ETH": 0.9}}, r"alpha.BTC \+ gamma.BTC / 2 \+ beta.BTC is 1.05, expected less"),
        ({**GARCH, "gamma": {"BTC": -0.2, "ETH": 0}}, r"alpha.BTC \+ gamma.BTC is -0.1, expected 0 or more"),
        ({**GARCH, "alpha": {"BTC": 0.1}}, "alpha has BTC, expected those of daily_volatility"),
        ({**GARCH, "begin": "now"}, "shock.begin is 'now', expected 'random_hour' or 'last_hour'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(load: Load, shock: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        build(load(shock, horizon_hours=6))
    assert "\n" not in str(error.value)


def test_a_folder_of_prices_and_short_bars_are_needed(load: Load, tmp_path: Path) -> None:
    config = write_small(tmp_path)
    with pytest.raises(InputError, match=r"prices.dir is missing, the folder of the price files was expected"):
        load_config(config, overrides={"shock": BLOCKS})
    _files(tmp_path / "prices", seconds=7200)
    with pytest.raises(InputError, match="has bars of 7200 s, expected a divisor of 3600 s"):
        build(load(BLOCKS, horizon_hours=6))


def test_times_may_be_those_of_toml(load: Load, tmp_path: Path) -> None:
    (tmp_path / "blocks.toml").write_text(
        'kind = "block_bootstrap"\nstart = 2021-05-19T00:00:00Z\nuntil = 2021-06-03\nblock_hours = 5\n'
    )
    table = build(load(str(tmp_path / "blocks.toml"), horizon_hours=6)).shock.blocks
    assert table is not None and len(table.log) == 16 * 24
