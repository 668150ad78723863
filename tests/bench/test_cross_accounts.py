"""How fast accounts on cross margin are watched, beside a plain loop in C++ that does the same work.

    uv run pytest tests/bench/test_cross_accounts.py -n 0 --benchmark-only -s
    taskset -c 0 uv run pytest ...        for numbers of one core

100,000 accounts over six assets at one venue, 24 hours of one-minute steps, on an ordinary day and in a crash. The loop
is compiled on the spot where there is a g++. Before anything is timed, both must close equally many accounts on the
same prices, path by path; what the loop closes it forgets: no order, no layer, no fund. `account-path-steps/s`
of a row are its accounts x paths x steps over its median time.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference.small import market, pool, positions_of, run_of, venue, write_positions

from stress.build import _LANES_WITH_ACCOUNTS, Built, _schedules, build, on_device
from stress.config import Run
from stress.cross import CrossAccounts, compile_accounts

ASSETS: tuple[str, ...] = ("BTC", "ETH", "SOL", "XRP", "DOGE", "BNB")
SHARES = np.array([0.5, 0.27, 0.1, 0.06, 0.03, 0.04])
SIGMA = np.array([0.022, 0.028, 0.045, 0.035, 0.042, 0.030])
"""Daily volatility [1]."""
CORRELATION = 0.72
ACCOUNTS, PATHS, HOURS = 100_000, 64, 24
STEPS = 60 * HOURS
TIERS = ((0, 0.004), (50_000, 0.005), (600_000, 0.0065), (3e6, 0.01), (12e6, 0.02), (70e6, 0.025), (100e6, 0.05))
SOURCE = Path(__file__).with_name("cross_loop.cpp")


def crowd(n: int, seed: int = 1) -> CrossAccounts:
    """Accounts of one to six positions, with the leverage of the default population: gross notional over equity.

    Two in three are long; a position in eight is against the account's side.
    """
    rng = np.random.default_rng(seed)
    side = np.where(rng.random(n) < 0.85 / 1.3, 1.0, -1.0)
    held = rng.random((n, 6)) < rng.choice([0.15, 0.4, 0.8], (n, 1))
    held[np.arange(n), rng.choice(6, n, p=SHARES)] = True
    weight = held * SHARES * rng.lognormal(0, 0.7, (n, 6))
    usual = np.clip(np.where(side > 0, 2.9, 2.6) * np.exp(0.72 * rng.standard_normal(n)), 1.0, 100.0)
    leverage = np.where(rng.random(n) < 0.006, 20 * np.exp(rng.random(n) * np.log(125 / 20)), usual)
    notional = 80e3 * np.exp(1.5 * rng.standard_normal(n)) * (leverage / 5) ** -0.8
    sign = side[:, None] * np.where(rng.random((n, 6)) < 1 / 8, -1.0, 1.0)
    usd = notional[:, None] * sign * weight / weight.sum(axis=1, keepdims=True)
    equity = np.maximum(notional / leverage, 1.05 * _maintenance(np.abs(usd)) + 0.0015 * notional)
    entry = np.where(usd != 0, 100 * np.exp(0.03 * rng.standard_normal((n, 6))), 0.0)
    cash = equity - np.sum(usd / 100 * (100 - entry), axis=1)
    return CrossAccounts(np.zeros(n, np.int32), usd / 100, entry, cash, np.ones(n), np.arange(n))


def _maintenance(usd: np.ndarray) -> np.ndarray:
    floor, rate = np.array(TIERS).T
    return np.sum(np.diff(rate, prepend=0.0) * np.maximum(usd[..., None] - floor, 0.0), axis=(1, 2))


def prices(day: str, seed: int = 2) -> np.ndarray:
    """Log indices (step, asset, path): a diffusion, and in the crash BTC's fall by a fifth in six hours from hour 2."""
    rng = np.random.default_rng(seed)
    matrix = np.full((6, 6), CORRELATION) + (1 - CORRELATION) * np.eye(6)
    factor = SIGMA[:, None] * np.linalg.cholesky(matrix) / np.sqrt(1440)
    log = np.cumsum(np.einsum("ab,sbp->sap", factor, rng.standard_normal((STEPS, 6, PATHS))), axis=0)
    if day == "crash":
        beta = np.maximum(CORRELATION * SIGMA / SIGMA[0], 1.0)
        fallen = np.clip((np.arange(1, STEPS + 1) - 120) / 360, 0, 1)
        log = log + np.log(0.8) * fallen[:, None, None] * beta[:, None]
    return log.astype(np.float32)


def world_of(rules: str, folder: Path) -> tuple[Run, Built]:
    """One venue: plain, where accounts are closed whole at the mark, or with every rule on; next to nothing on ladders.

    Args:
        rules: `plain` or `every rule`.
        folder: For the file of the accounts on ladders.
    """
    tiers = [{"floor_usd": floor, "rate": rate} for floor, rate in TIERS]
    one, place, run = market(tiers=tiers), {}, {}
    if rules == "every rule":
        one |= {"adv_usd": 1e10, "take_bound_bps": 300, "throughput_usd_per_minute": 3e8, "auction_usd_per_hour": 2e7}
        one |= {"unwind_usd_per_minute": 2e7}
        place = {"liquidation_fee_bps": 125, "surplus_to": "pool", "staging": {"kind": "tiers"}}
        place |= {"pools": [pool(3e8, 3)]}
        place |= {"funding": {"interval_hours": 8, "interest": 1e-4, "clamp": 5e-4, "cap": 3e-3, "source": "made up"}}
        run = {"impact": {"i_ref": 0.01, "contagion": 0.2}}
    file = folder / "positions.parquet"
    write_positions(file, positions_of([(0, 0, 1e2, 100.0, 5e3, 1.0)]), ["one"], list(ASSETS))
    places = [venue("one", dict.fromkeys(ASSETS, one), **place)]
    volatility = dict(zip(ASSETS, SIGMA.tolist(), strict=True))
    config = run_of(places, volatility, file, dtype="float32", horizon_hours=HOURS, **run)
    return config, build(config)


@functools.cache
def _program() -> Any:
    import jax
    from stress_kernels.simulate import simulate

    return jax.jit(simulate)


def engine(day: str, rules: str, folder: Path, with_accounts: bool = True) -> tuple[Any, Any]:
    """A call that runs the engine once, and the accounts as it holds them."""
    import jax

    config, built = world_of(rules, folder)
    start = built.start_price
    made = compile_accounts(crowd(ACCOUNTS), _schedules(config), start, 1, None, "float32", volatility=SIGMA)
    world, ladders, _ = on_device(built)
    world = replace(world, lanes=_LANES_WITH_ACCOUNTS)
    given = prices(day), ladders, world, jax.tree.map(jax.numpy.asarray, made) if with_accounts else None
    return lambda: jax.device_get(_program()(*given)), made


@functools.cache
def loop() -> Path | None:
    """The C++ loop, compiled; none where there is no compiler."""
    if shutil.which("g++") is None:
        return None
    out = Path(tempfile.mkdtemp()) / "cross_loop"
    subprocess.run(["g++", "-O3", "-march=native", "-std=c++17", str(SOURCE), "-o", str(out)], check=True)
    return out


def in_cpp(binary: Path, accounts: Any, log: np.ndarray, folder: Path) -> tuple[float, np.ndarray]:
    """Seconds that the loop takes, and the accounts that it closes on every path."""
    k, a, b = accounts.quantity.shape
    tiers = accounts.floor.shape[-1]
    with (folder / "in.bin").open("wb") as file:
        np.array([k, a, b, tiers, log.shape[0], log.shape[2]], np.int32).tofile(file)
        for table in (
            accounts.quantity, accounts.equity, accounts.count, accounts.floor[0], accounts.rate[0],
            accounts.deduction[0], accounts.pace, *_against(accounts.words), np.moveaxis(log, -1, 0),
        ):  # fmt: skip
            np.ascontiguousarray(table, np.float32).tofile(file)
    said = subprocess.run([str(binary), str(folder / "in.bin")], check=True, capture_output=True, text=True).stdout
    seconds, *closed = said.split()
    return float(seconds), np.array(closed, int)


def _against(words: Any) -> tuple[np.ndarray, ...]:
    """`Words.falls` and `rises` by price and block."""
    bit = np.arange(len(words.of)) - words.first[words.of]
    return tuple(table[words.of, :, bit].T for table in (words.falls, words.rises))


def note(benchmark: Any, seconds: float) -> None:
    """Say how many account-path-steps a second that is."""
    benchmark.extra_info["account_path_steps_per_s"] = ACCOUNTS * PATHS * STEPS / seconds
    print(f"\n{benchmark.name}: {ACCOUNTS * PATHS * STEPS / seconds:.3g} account-path-steps/s")


@pytest.mark.benchmark(group="accounts on cross margin")
@pytest.mark.parametrize("rules", ["plain", "every rule", "no accounts"])
@pytest.mark.parametrize("day", ["ordinary", "crash"])
def test_engine(benchmark, day, rules, tmp_path):
    """Ours; `no accounts` is what the step costs without any, a bound on all the others."""
    run, _ = engine(day, rules, tmp_path, rules != "no accounts")
    run()
    benchmark.pedantic(run, rounds=3)
    note(benchmark, benchmark.stats.stats.median)


@pytest.mark.benchmark(group="accounts on cross margin")
@pytest.mark.parametrize("day", ["ordinary", "crash"])
def test_cpp(benchmark, day, tmp_path):
    """The loop; first, that it closes the accounts that the engine closes."""
    binary = loop()
    if binary is None:
        pytest.skip("no g++ here")
    run, accounts = engine(day, "plain", tmp_path)
    log = prices(day)
    _, theirs = in_cpp(binary, accounts, log, tmp_path)
    ours = run()["accounts_liquidated"].sum(axis=(0, 1))
    assert ours.min() > 0
    # In 32 bits an account whose margin is nil to the last bit may go in this step or another; a day evens that out.
    assert np.abs(ours - theirs).max() <= 1 + 1e-4 * ours.max(), (ours, theirs)
    seconds = sorted(in_cpp(binary, accounts, log, tmp_path)[0] for _ in range(5))[2]
    benchmark.pedantic(lambda: in_cpp(binary, accounts, log, tmp_path), rounds=1)
    note(benchmark, seconds)
