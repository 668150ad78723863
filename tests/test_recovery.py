"""The days after the last hour: against the same run going on, against closed forms, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Command
from reference.small import crowd, market, pool, positions_of, run_of, venue, write_positions
from scipy.integrate import quad
from stress_kernels.coarser_clock import slowed
from stress_kernels.cohorts import joined
from stress_kernels.recovery import Later, simulate_on, spread_out
from stress_kernels.simulate import open_carry, path_keys, simulate

import stress
from stress.behaving import returning_positions
from stress.behaviour import Behaviour
from stress.build import _schedules, build, on_device
from stress.config import Run
from stress.devices import choose
from stress.digests import config_json
from stress.portfolio import Positions
from stress.recovery import Recovery
from stress.results import by_path
from stress.run import Simulation
from stress.spec import InputError, validate

HOURS, DAYS, PATHS = 24, 2, 4
BACK = {
    "half_life_days": 2.0, "least_leverage": 8, "most_leverage": 30, "account_usd": 1e5, "levels": 8,
    "source": "made up",
}  # fmt: skip
RULE = {"days": DAYS, "volatility_half_life_days": 1.5, "open_interest": BACK, "source": "made up"}
FUNDING = {"interval_hours": 7, "interest": 1e-3, "clamp": 5e-3, "cap": 2e-2, "source": "made up"}
BUSY = {
    "take_bound_bps": 20, "auction_usd_per_hour": 1e6, "throughput_usd_per_minute": 4e4, "unwind_usd_per_minute": 1e3,
}  # fmt: skip
SUMMED = ("recovery_liquidation_volume",)
WALK = {"kind": "gbm", "daily_volatility": {"A": 0.06}, "correlation": 0.0}


@pytest.fixture(scope="module", autouse=True)
def in_64_bits():
    with jax.enable_x64(True):
        yield


def config(
    folder: Path, rows: list[tuple] | Positions, rule: dict[str, Any] | None = RULE, busy: bool = False, **changes: Any
) -> Run:
    """One asset at two venues on an hourly clock; busy: with funding, queues, auctions, takeovers and medians."""
    positions = rows if isinstance(rows, Positions) else positions_of(rows)
    file = folder / f"{len(list(folder.iterdir()))}.parquet"
    write_positions(file, positions, ["one", "two"], ["A"])
    of_market: dict[str, Any] = BUSY if busy else {}
    more: dict[str, Any] = {"pools": [pool(1e8, 0.2)], "funding": FUNDING} if busy else {}
    places = [venue(name, {"A": market(**of_market)}, mark_window_minutes=300, **more) for name in ("one", "two")]
    data = {
        "horizon_hours": HOURS, "step_seconds": 3600, "shock": WALK, "paths": PATHS, "chunk": 16,
        "impact": {"i_ref": 0.01 * busy, "depth": False},
    } | changes  # fmt: skip
    behaviour = {} if rule is None else {"behaviour": {"recovery": rule}}
    return run_of(places, {"A": 0.06}, file, **behaviour, **data)


def two_sided(seed: int = 1, leverage: tuple[float, float] = (3, 40)) -> list[tuple]:
    return crowd(np.random.default_rng(seed), [(0, 0), (1, 0)], leverage=leverage)


def gone_on(run: Run, path: np.ndarray, level: float = 1.0, share: float = 0.0) -> dict[str, np.ndarray]:
    """The days of a run along a path of log indices (hour, path), with positions coming back by a share a day."""
    world, ladders, _ = on_device(build(run))
    assert world.recovery is not None and world.recovery.comeback is not None
    back = replace(world.recovery.comeback, level=jnp.asarray(level), share=jnp.asarray(share))
    world = replace(world, recovery=replace(world.recovery, comeback=back))
    log = jnp.asarray(path)[:, None]
    later = Later(log[HOURS:] - log[HOURS - 1 : HOURS], jnp.zeros_like(log[HOURS:]), jnp.zeros_like(log[0]))
    return jax.device_get(_days()(log[:HOURS], later, ladders, world))


def plainly(run: Run, path: np.ndarray) -> dict[str, np.ndarray]:
    """The same hours as one run."""
    world, ladders, _ = on_device(build(run))
    return jax.device_get(_hours()(jnp.asarray(path)[:, None], ladders, world))


def _days():
    return _PROGRAMS.setdefault("days", jax.jit(simulate_on))


def _hours():
    return _PROGRAMS.setdefault("hours", jax.jit(simulate))


_PROGRAMS: dict[str, Any] = {}


def falls(seed: int = 3) -> np.ndarray:
    """Log indices of three days that fall before and after the first one is over, and shake (hour, path)."""
    rng = np.random.default_rng(seed)
    moves = rng.normal(0, 0.01, (HOURS * (1 + DAYS), PATHS))
    moves[[20, 23]] -= 0.05 * rng.uniform(0.5, 1.5, PATHS)
    moves[30], moves[52] = -0.08, 0.3
    return np.cumsum(moves, axis=0)


def test_on_the_same_clock_it_is_the_run_going_on(tmp_path: Path) -> None:
    """Queues, windows of marks, premiums, rolling peaks, what pools took over: nothing is lost at the last hour."""
    path = falls()
    ours = gone_on(config(tmp_path, two_sided(), busy=True), path)
    theirs = plainly(config(tmp_path, two_sided(), None, busy=True, horizon_hours=HOURS * (1 + DAYS)), path)
    volume = theirs["liquidation_volume"].reshape(1 + DAYS, HOURS, 2, 1, 2, PATHS).sum(axis=1)
    assert np.all(volume.sum(axis=(1, 2, 3)) > 1e6)
    assert np.all(theirs["absorbed_volume"][HOURS:].sum(axis=(0, 1, 2, 4))[:4] > 1e4)
    np.testing.assert_allclose(ours["recovery_liquidation_volume"], volume, rtol=1e-9, atol=1e-3)
    for name in ("fund_equity", "open_interest"):
        at_ends = theirs[name][HOURS - 1 :: HOURS]
        np.testing.assert_allclose(ours[f"recovery_{name}"], at_ends, rtol=1e-9, err_msg=name)
    for name in ("liquidation_volume", "fund_low"):
        np.testing.assert_array_equal(ours[name], theirs[name][:HOURS], err_msg=name)
    moved = np.diff(np.log(theirs["index_close"]), axis=0)[HOURS - 1 :].reshape(DAYS, HOURS, 1, PATHS)
    np.testing.assert_allclose(ours["recovery_volatility"][1:], np.sqrt((moved**2).sum(axis=1)), rtol=1e-7)
    assert np.all(ours["ledger_residual"] < 1e-12) and np.all(ours["status"] == 0)


@pytest.mark.parametrize("level", [1.5, 0.6], ids=["coming back", "going on leaving"])
def test_what_is_missing_halves_in_a_half_life(level: float, tmp_path: Path) -> None:
    """Nothing moves and nobody is liquidated: open interest is an exponential, and fresh ones have their leverage."""
    share = 1 - 2 ** (-1 / 2.0)
    run = config(tmp_path, two_sided(leverage=(2, 4)))
    out = gone_on(run, np.zeros((HOURS * (1 + DAYS), PATHS)), level, share)
    interest = out["recovery_open_interest"]
    days = np.arange(1 + DAYS)[:, None, None, None]
    expected = interest[:1] * (level + (1 - level) * 2 ** (-days / 2.0))
    np.testing.assert_allclose(interest, expected, rtol=1e-9)
    assert out["recovery_liquidation_volume"].sum() == 0
    leverage = out["recovery_mean_leverage"]
    if level < 1:
        np.testing.assert_allclose(leverage, np.broadcast_to(leverage[:1], leverage.shape), rtol=1e-9)
    else:
        fresh = np.mean([1 / x for x in 8 * (30 / 8) ** ((np.arange(8) + 0.5) / 8)])
        part = 1 - 1 / (level + (1 - level) * 2 ** (-days[1:] / 2.0))
        np.testing.assert_allclose(1 / leverage[1:], (1 - part) / leverage[0] + part * fresh, rtol=1e-9)


def test_who_comes_back_is_an_account_like_any_other(tmp_path: Path) -> None:
    """Twice as many after a rise, then a fall: what is liquidated is that of a book which had them from the start."""
    rise, path = 1.05, np.full((HOURS * (1 + DAYS), PATHS), np.log(1.05))
    path[HOURS + 4 :] += np.log([0.96, 0.93, 0.9, 0.86])
    path[HOURS + 16 :] += np.log([1.0, 0.97, 1.12, 1.2])
    old = positions_of(two_sided(leverage=(3, 5)))
    run = config(tmp_path, old, busy=False, impact={"i_ref": 0.01, "depth": False})
    ours = gone_on(run, path, level=2.0, share=1.0)["recovery_liquidation_volume"]
    fresh = returning_positions(run, old, _schedules(run), np.array([100.0]))
    assert fresh is not None
    whole = {name: np.concatenate([getattr(old, name), getattr(fresh, name)]) for name in ("venue", "asset", "margin")}
    both = Positions(
        quantity=np.concatenate([old.quantity, fresh.quantity / rise]),
        entry_price=np.concatenate([old.entry_price, 100.0 * rise + 0 * fresh.quantity]),
        count=np.concatenate([old.count, rise * fresh.count]),
        **whole,
    )
    # Counts in files are whole numbers.
    both = replace(both, quantity=both.quantity * both.count, margin=both.margin * both.count, count=0 * both.count + 1)
    later = config(tmp_path, both, None, impact={"i_ref": 0.01, "depth": False}, prices={"start": {"A": 105.0}})
    later = later.model_copy(update={"horizon_hours": HOURS * (1 + DAYS)})
    theirs = plainly(later, np.concatenate([path[HOURS:] - np.log(rise), np.zeros((HOURS, PATHS)) + path[-1]]))
    days = theirs["liquidation_volume"][: HOURS * DAYS].reshape(DAYS, HOURS, 2, 1, 2, PATHS).sum(axis=1)
    assert days[0].sum(axis=(0, 1, 2)).min() > 1e6
    np.testing.assert_allclose(ours[1], days[0], rtol=1e-6, atol=1)


def test_accounts_leave_with_a_share_of_what_is_liquidated(tmp_path: Path) -> None:
    """Without impact a book of half as many accounts of every kind is liquidated by half."""
    path = np.zeros((HOURS * (1 + DAYS), PATHS))
    path[HOURS + 4 :] = np.log([0.95, 0.9, 0.85, 1.1])
    run = config(tmp_path, two_sided())
    all_stay, half = (gone_on(run, path, level, share) for level, share in ((1.0, 0.0), (0.5, 1.0)))
    volumes = [out["recovery_liquidation_volume"][1] for out in (all_stay, half)]
    assert volumes[0].sum(axis=(0, 1, 2)).min() > 1e6
    np.testing.assert_allclose(volumes[1], 0.5 * volumes[0], rtol=1e-9)
    assert np.all(half["ledger_residual"] < 1e-12)


def test_variance_comes_down_from_what_the_hours_have_shown(tmp_path: Path) -> None:
    """Every move is that of the diffusion times the root of its mean variance over that in the long run."""
    run = config(tmp_path, two_sided(leverage=(2, 3)), RULE | {"step_minutes": 30}, step_seconds=1800)
    _, _, shock = on_device(build(run))
    keys = path_keys(jnp.uint32(1), jnp.int32(0), PATHS)
    log = np.repeat(falls()[:HOURS], 2, axis=0)[:, None]
    later = jax.device_get(shock.after.drawn(keys, jnp.asarray(log)))
    squares = np.diff(log[1::2, 0], axis=0, prepend=0) ** 2 / (0.06**2 / 24)
    weight = 2.0 ** (-np.arange(HOURS)[::-1] / 36)
    weight *= (1 - 2 ** (-HOURS / 36)) / weight.sum()
    x = weight @ squares + 2 ** (-HOURS / 36)
    np.testing.assert_allclose(later.volatility[0], 0.06 * np.sqrt(x), rtol=1e-6)
    steps = [quad(lambda t: 2 ** (-t / 1.5), k / 48, (k + 1) / 48)[0] * 48 for k in range(48 * DAYS)]
    root = np.sqrt(1 + (x - 1) * np.array(steps)[:, None])
    plain = jax.device_get(shock.after.shock.paths(jax.vmap(lambda key: jax.random.fold_in(key, 106))(keys)))
    moves = np.diff(plain[:, 0], axis=0, prepend=0) * root
    np.testing.assert_allclose(np.diff(later.log[:, 0], axis=0, prepend=0), moves, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(later.nearer, 0 * later.nearer, atol=1e-12)  # none without the barrier correction
    np.testing.assert_allclose(np.std(np.diff(plain, axis=0)), 0.06 / np.sqrt(48), rtol=0.1)


def test_memory_on_a_longer_clock_holds_the_means_and_peaks_of_the_shorter(tmp_path: Path) -> None:
    run = config(tmp_path, two_sided(), busy=True, step_seconds=300, horizon_hours=11)
    world, ladders, _ = on_device(build(run))
    assert world.recovery is not None
    coarse, each, steps = world.recovery.world, 12, 132
    carry, _ = open_carry(ladders, world, None, 1, PATHS)
    rng = np.random.default_rng(1)
    basis, equity = rng.normal(0, 1, (steps, 2, 1, PATHS)), rng.uniform(1, 2, (steps, 2, PATHS))
    ring, peaks = np.zeros((world.window, 2, 1, PATHS)), np.full((world.blocks + 1, 2, PATHS), -np.inf)
    for k in range(steps):
        ring[k % world.window] = basis[k]
        block = k // world.block_steps % (world.blocks + 1)
        fresh = k % world.block_steps == 0
        peaks[block] = equity[k] if fresh else np.maximum(peaks[block], equity[k])
    memory = replace(
        carry.memory, basis=jnp.asarray(ring), block_peaks=jnp.asarray(peaks), step=jnp.asarray(steps),
        premium_sum=jnp.full((2, 1, PATHS), 36.0), basis_sum=jnp.asarray(basis[-world.window :].sum(axis=0)),
    )  # fmt: skip
    after = jax.device_get(slowed(memory, world, coarse))
    hours = basis.reshape(11, each, 2, 1, PATHS).mean(axis=1)
    for hour in range(11 - coarse.window, 11):
        np.testing.assert_allclose(after.basis[hour % coarse.window], hours[hour], rtol=1e-12)
    np.testing.assert_allclose(after.basis_sum, hours[-coarse.window :].sum(axis=0), rtol=1e-9)
    highest = equity.reshape(11, each, 2, PATHS).max(axis=1)
    for hour in range(11 - coarse.blocks, 11):
        np.testing.assert_allclose(after.block_peaks[hour % (coarse.blocks + 1)], highest[hour], rtol=1e-12)
    assert after.step == 11
    np.testing.assert_allclose(after.premium_sum, 3.0)


def test_a_flow_spread_over_a_long_step_leaves_what_its_parts_leave(tmp_path: Path) -> None:
    run = config(tmp_path, two_sided(), busy=True, step_seconds=300, horizon_hours=1)
    world, *_ = on_device(build(run))
    assert world.recovery is not None
    spread = spread_out(world.recovery.world, 12)
    left = 0.0
    for _ in range(12):
        left = left * float(world.impact.decay_local) + 1 / 12
    np.testing.assert_allclose(world.adv / spread.adv, left, rtol=1e-9)


def test_cohorts_leave_every_ladder_its_own_stop_orders(tmp_path: Path) -> None:
    """Tables of several kinds are looked up by one number, which moves when others are put beside them."""
    inflow = {
        "per_day": 1, "held_hours": 8, "cohorts": 2, "least_leverage": 5, "most_leverage": 20, "account_usd": 1e5,
        "levels": 8, "source": "made up",
    }  # fmt: skip
    rules = {"stop_losses": {"adoption": 0.5, "nearest": 0.3, "farthest": 0.9}, "inflow": inflow}
    run = config(tmp_path, two_sided(), None).model_copy(update={"behaviour": Behaviour.model_validate(rules)})
    world, ladders, _ = on_device(build(run))
    assert world.behaviour is not None and ladders.failing is not None
    both = joined(ladders, world.behaviour.inflow)
    assert both.failing is not None
    rungs = np.arange(ladders.rows.shape[-2])
    for name in ("failing", "rows"):
        before, after = (np.asarray(getattr(x, name)) for x in (ladders, both))
        flat = after.reshape(-1, after.shape[-1])
        found = flat[np.asarray(both.first)[:, :, :, : before.shape[3]] + rungs]
        np.testing.assert_array_equal(found, before, err_msg=name)


def test_without_it_a_config_is_what_it_was(tmp_path: Path) -> None:
    plain = config(tmp_path, two_sided(), None)
    assert "recovery" not in config_json(plain) and plain.recovery_days == 0
    only = Behaviour.model_validate({"makers_leave": {"move": 1, "minutes": 5, "share": 0.1, "return_minutes": 9,
                                                      "source": "made up"}})  # fmt: skip
    assert set(only.model_dump()) == {"makers_leave"}


def test_a_run_keeps_its_days_and_shows_them(small: Path, tmp_path: Path, liqstress: Command) -> None:
    """In the store, in the table, in the picture; a chunk made again is the same to the last bit."""
    rule = "behaviour.recovery={days=2, step_minutes=30, volatility_half_life_days=1, source='made up'}"
    store = tmp_path / "small.zarr"
    said = liqstress("run", small, "--out", store, "--set", rule, "--set", "shock.daily_volatility.BTC=0.2")
    assert said.code == 0, said.err
    ds = stress.open_run(store)
    assert list(ds["day"].values) == [0, 1, 2]
    assert ds["recovery_liquidation_volume"].dims == ("path", "day", "venue", "asset", "side")
    assert ds["recovery_liquidation_volume"].sum() > 0 and ds["ledger_residual"].max() < 1e-6
    assert "days after the last hour" in said.out and "daily volatility of BTC" in said.out
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in ds.liq.plot.recovery().lines}
    interest = by_path(ds, "recovery_open_interest", "day")
    middle = np.quantile(100 * interest / interest[:, :1], 0.5, axis=0, method="inverted_cdf")
    np.testing.assert_allclose(lines["open interest"], middle)
    with jax.enable_x64(False):
        again = Simulation.of(Run.model_validate_json(ds.attrs["config"]), choose("cpu")).chunk(1)
    for name in ds.data_vars:
        np.testing.assert_array_equal(again[name].astype(ds[name].dtype), ds[name].values[16:32], err_msg=str(name))


WRONG = {
    "too many days": ({"days": 15}, ["days is 15", "less than or equal to 14"]),
    "no day": ({"days": 0}, ["days is 0", "greater than or equal to 1"]),
    "a step that divides no hour": ({"step_minutes": 45}, ["step_minutes is 45 min", "a divisor of an hour"]),
    "a negative half-life": ({"volatility_half_life_days": -1}, ["volatility_half_life_days is -1", "greater than 0"]),
    "nobody comes back": ({"open_interest": BACK | {"level": -1}}, ["open_interest.level is -1"]),
    "an endless way": ({"open_interest": BACK | {"half_life_days": 0}}, ["half_life_days is 0", "greater than 0"]),
    "leverages the wrong way round": (
        {"open_interest": BACK | {"most_leverage": 3}}, ["least_leverage is 8 and most_leverage is 3", "Change one"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_days_are_refused(name: str) -> None:
    changes, words = WRONG[name]
    with pytest.raises(InputError) as error:
        validate(Recovery, RULE | changes, "run.toml")
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words), error.value


UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "a prescribed path alone": (
        {"shock": {"kind": "prescribed", "minutes": [5], "moves": {"A": [-0.1]}}},
        r"recovery.calm is missing.*Add it",
    ),
    "steps that do not fit": ({"step_seconds": 90}, r"step_minutes is 1 min, expected whole steps of the run of 90 s"),
    "cohorts between steps": (
        {"behaviour": {"inflow": {
            "per_day": 1, "held_hours": 0.5, "cohorts": 1, "least_leverage": 5, "most_leverage": 20,
            "account_usd": 1e5, "source": "made up"}}},
        r"held_hours is 0.5 h, which 1 cohorts share by 1800 s, expected whole steps of 3600 s",
    ),
    "kept without days": ({"keep": ["recovery_volatility"], "behaviour": {"recovery": None}},
                          r"keep: 'recovery_volatility' is of days after the last hour, expected behaviour.recovery"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_days_that_do_not_fit_the_run_are_refused(name: str, tmp_path: Path) -> None:
    changes, words = UNFIT[name]
    minutes = 1 if "step_seconds" in changes else 60
    data = json.loads(config_json(config(tmp_path, two_sided(), step_seconds=60)))
    data["behaviour"]["recovery"]["step_minutes"] = minutes
    data["behaviour"] |= changes.get("behaviour", {})
    data |= {key: value for key, value in changes.items() if key != "behaviour"}
    with pytest.raises(InputError, match=words):
        validate(Run, data, "run.toml")


def test_calm_says_everything_of_every_asset(tmp_path: Path) -> None:
    calm = WALK | {"daily_volatility": {"B": 0.05}}
    with pytest.raises(ValueError, match=r"calm.daily_volatility says nothing about A, expected every asset"):
        config(tmp_path, two_sided(), RULE | {"calm": calm})


def test_accounts_on_cross_margin_are_not_followed(tmp_path: Path) -> None:
    rows = "venue,account,asset,quantity,entry_price,margin,mode\n"
    (tmp_path / "positions.csv").write_text(
        rows + "one,1,A,10,100,,cross\none,1,B,-10,100,,cross\none,2,A,1,100,20,isolated\n"
    )
    (tmp_path / "collateral.csv").write_text("venue,account,token,amount\none,1,USD,500\n")
    files = {name: str(tmp_path / f"{name}.csv") for name in ("positions", "collateral")}
    places = [venue("one", {a: market() for a in "AB"})]
    walk = WALK | {"daily_volatility": {"A": 0.05, "B": 0.05}}
    run = run_of(places, {"A": 0.05, "B": 0.05}, None, portfolio=files, shock=walk, behaviour={"recovery": RULE})
    with pytest.raises(InputError, match=r"behaviour.recovery is of accounts with one linear position.*Leave out"):
        build(run)
