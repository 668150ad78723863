"""The kernel that keeps paths on the chip gives what the engine gives, knows what it does not know, and can be built.

It is run as ordinary array programs here, in which it is the same program but for the threads.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh
from reference import small
from stress_kernels.chip import done_again, on_chip

from stress import on_chip as choice
from stress.build import Built, build, on_device
from stress.config import Run
from stress.devices import Devices
from stress.programs import interpreted, or_plain, simulated, simulated_on_chip
from stress.spec import InputError

ASSETS, HOURS, PATHS, LANES = ("BTC", "ETH", "SOL"), 3, 24, 16
"""Paths do not fill the blocks, and assets do not fill a tile."""
STEPS = HOURS * 30


def config(folder: Path, **limits: Any) -> Run:
    """Two venues with different rules and more accounts than rungs; impact, fees, partial closes, funding.

    Args:
        folder: Where to keep the accounts.
        limits: Of the first venue's fund or markets; without any, none binds.
    """
    fund, bound = limits.get("fund", 1e8), limits.get("bound", 5000)
    market = {"adv_usd": 4e7, "take_bound_bps": bound, "throughput_usd_per_minute": limits.get("throughput", 1e9)}
    tiers = {"tiers": [{"floor_usd": 0, "rate": 0.005}, {"floor_usd": 60_000, "rate": 0.01}]}
    funding = {"interval_hours": 1, "interest": 1e-4, "clamp": 5e-4, "cap": 0.003, "source": "made up"}
    # Compiled, the engine finds that the layers leave the last bit of an order, and would deleverage that.
    deleveraging = {"ranking": "queue", "close_at": "bankruptcy", "leftover": False}
    first = small.venue(
        "one",
        {a: small.market(**market, **tiers) for a in ASSETS},
        liquidation_fee_bps=50,
        staging={"kind": "tiers"},
        pools=[small.pool(fund)],
        adl=deleveraging | {"drawdown_share": 0.3, "drawdown_window_hours": 8},
        funding=funding,
    )
    other = small.venue(
        "two",
        {a: small.market(adv_usd=2e7) for a in ASSETS[:2]},
        mark="index_average",
        surplus_to="trader",
        liquidation_fee_bps=20,
        adl=deleveraging,
        funding=funding | {"interval_hours": 2},
    )
    return small.run_of(
        [first, other],
        dict.fromkeys(ASSETS, 0.05),
        accounts(folder),
        dtype="float32",
        horizon_hours=HOURS,
        step_seconds=120,
        barrier_correction=True,
        shock={"kind": "gbm", "correlation": 0.5, "daily_volatility": dict.fromkeys(ASSETS, 0.05)},
        impact={"i_ref": 0.01, "contagion": 0.1},
        ladder={"rungs": 256},
    )


def accounts(folder: Path) -> Path:
    """A file of 1,200 accounts of 2 to 40 times their margin, on both sides of all markets that are listed."""
    draw, lines = np.random.default_rng(5), ["venue,account,asset,quantity,entry_price,margin,mode"]
    markets = [("one", a) for a in ASSETS] + [("two", a) for a in ASSETS[:2]]
    for i in range(1200):
        venue, asset = markets[i % len(markets)]
        coins, leverage = draw.lognormal(5.5, 1.0), 2 * 20 ** draw.uniform()
        sign = 1 if draw.uniform() < 0.6 else -1
        lines.append(f"{venue},{i},{asset},{sign * coins:.4f},100,{100 * coins / leverage:.2f},isolated")
    file = folder / "positions.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def walk(drift: float, jump: float) -> np.ndarray:
    """Log indices (step a p): a diffusion of 3 % a day, a steady fall, and a jump in the second hour."""
    steps = np.random.default_rng(11).normal(0, 0.03 / np.sqrt(720), (STEPS, len(ASSETS), PATHS))
    steps[:60] += drift / 60
    steps[40] += jump
    return np.cumsum(steps, axis=0).astype(np.float32)


DAYS = {"calm": walk(0, 0), "fall": walk(-0.12, 0), "jump": walk(0.02, -0.08), "squeeze": walk(0.1, 0.05)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(config(tmp_path_factory.mktemp("ample")))


class Both(NamedTuple):
    """What the kernel says of some paths, which it gives up, and what comes of them when some are done again."""

    ours: dict[str, Any]
    unknown: np.ndarray
    whole: dict[str, Any]


Compare = Callable[..., Both]


@pytest.fixture(scope="module")
def both(built: Built) -> Compare:
    """Of one program, as compiling takes most of the time: with all paths done again, `whole` is the engine's."""

    def given(log: np.ndarray, of: Built, *, all_again: bool) -> tuple[Any, ...]:
        world, ladders, _ = on_device(of)
        return jnp.asarray(log), ladders, world, jnp.asarray(all_again)

    def computed(log: jax.Array, ladders: Any, world: Any, all_again: jax.Array) -> tuple[Any, Any, Any]:
        outputs, unknown = on_chip(log, ladders, world, lanes=LANES, interpret=True)
        return outputs, unknown, done_again(outputs, unknown | all_again, log, ladders, world)

    program = jax.jit(computed).lower(*given(DAYS["calm"], built, all_again=True)).compile()
    return lambda log, of, **how: Both(*jax.device_get(program(*given(log, of, **how))))


def alike(ours: dict[str, Any], engines: dict[str, Any], which: np.ndarray) -> None:
    """All outputs are, to rounding: money and coins of a sum of 1e9 in 32 bits, triggers to the last bit of a price."""
    assert set(ours) == set(engines)
    for name, of in engines.items():
        least = 1e-6 if name == "ledger_residual" else 1e-6 * np.max(np.nan_to_num(np.abs(of)))
        got, wanted = (np.asarray(x[name])[..., which] for x in (ours, engines))
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=least, err_msg=name)


@pytest.mark.parametrize("day", DAYS)
def test_it_gives_what_the_engine_gives(day, built, both):
    found = both(DAYS[day], built, all_again=True)
    assert not found.unknown.any()
    assert found.ours["liquidation_volume"].sum(axis=(0, 2, 3, 4)).min() > 1e5
    alike(found.ours, found.whole, np.ones(PATHS, bool))


LIMITS = {
    "a book that does not take all": {"bound": 60},
    "a queue": {"throughput": 3e4},
    "a fund that runs dry": {"fund": 1e6},
    "a fund that is drawn down": {"fund": 2.5e6},
}


@pytest.mark.parametrize("limit", LIMITS)
def test_it_gives_up_what_it_does_not_know_and_that_is_done_again(limit, tmp_path, both):
    tight = build(config(tmp_path, **LIMITS[limit]))
    log = np.where(np.arange(PATHS) % 2, DAYS["calm"], DAYS["jump"])
    found, engines = both(log, tight, all_again=False), both(log, tight, all_again=True).whole
    assert 0 < found.unknown.sum() < PATHS
    alike(found.ours, engines, ~found.unknown)
    alike(found.whole, engines, np.ones(PATHS, bool))


def test_it_can_be_built_for_a_gpu(built):
    """As far as it can be without one: down to the code that the compiler of its kernels takes."""
    world, ladders, _ = on_device(built)
    program = jax.jit(lambda log: on_chip(log, ladders, world, lanes=32, interpret=False)[0]["index_close"])
    h100 = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
    with warnings.catch_warnings(), jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=h100)):
        warnings.filterwarnings("ignore", "The Pallas Triton backend", DeprecationWarning)
        lowered = program.trace(jnp.asarray(DAYS["calm"])).lower(lowering_platforms=("cuda",))
    assert "__gpu$xla.gpu.triton" in lowered.as_text()


def gpu(capability: str = "9.0", platform: str = "gpu") -> Devices:
    return Devices("gpu", (SimpleNamespace(platform=platform, compute_capability=capability),))


def test_a_run_takes_it_on_a_gpu_that_can_and_when_told_so(built, monkeypatch):
    monkeypatch.delenv(choice.SWITCH, raising=False)
    assert choice.block_of(built, gpu()) is simulated_on_chip
    assert choice.block_of(built, gpu("7.5")) is simulated
    assert choice.block_of(built, Devices("cpu", tuple(jax.devices("cpu")))) is simulated
    monkeypatch.setenv(choice.SWITCH, "interpret")
    assert choice.block_of(built, gpu(platform="cpu")) is interpreted
    monkeypatch.setenv(choice.SWITCH, "off")
    assert choice.block_of(built, gpu()) is simulated
    monkeypatch.setenv(choice.SWITCH, "yes")
    with pytest.raises(InputError, match="LIQSTRESS_CHIP is 'yes', expected 'off' or 'interpret'"):
        choice.block_of(built, gpu())


def test_a_run_with_more_than_it_knows_goes_to_the_engine(built, monkeypatch):
    monkeypatch.delenv(choice.SWITCH, raising=False)
    world, ladders = built.world, built.ladders
    there = np.ones((1, 1))
    more = {
        "accounts on cross margin": replace(built, accounts=there),
        "exact triggers": replace(built, ladders=replace(ladders, probes=1)),
        "entry classes": replace(built, ladders=replace(ladders, rows=np.repeat(ladders.rows, 2, axis=3))),
        "stop orders": replace(built, ladders=replace(ladders, stops=there)),
        "double precision": replace(built, ladders=replace(ladders, rows=np.asarray(ladders.rows, np.float64))),
        "overlays": replace(built, world=replace(world, conditions=replace(world.conditions, thinness=there))),
        "pools without money": replace(built, world=replace(world, pool_cash=np.array([1e9, 0.0]))),
        "coins as money": replace(built, world=replace(world, inverse=there)),
        "vaults": replace(built, world=replace(world, vaults=there)),
        "transfers between pools": replace(built, world=replace(world, transfers=there)),
        "circuit breakers": replace(built, world=replace(world, breakers=there)),
        "behaviour": replace(built, world=replace(world, behaviour=there)),
    }
    assert choice.missing(built) == []
    for what, of in more.items():
        assert choice.missing(of) == [what]
        assert choice.block_of(of, gpu()) is simulated


def volumes(x: float, off: float = 0.0) -> dict[str, np.ndarray]:
    """Of two paths and three hours; by how much the second hour is off."""
    volume = np.full((2, 3, 1, 1, 2), x)
    volume[:, 1] *= 1 + off
    return {"liquidation_volume": volume}


def broken(x: float) -> dict[str, np.ndarray]:
    raise NotImplementedError("no such thing\nat all")


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (broken, r"fails here \(no such thing\)"),
        (lambda x: volumes(x, 2e-3), "is off by 0.002 of an hour's volume"),
        (lambda x: volumes(x, np.nan), "is off by nan of an hour's volume"),
    ],
)
def test_the_plain_program_takes_its_place(kernel, said):
    """Where the kernel cannot be built, and where it says something else."""
    tried = []

    def counted(x: float) -> dict[str, np.ndarray]:
        tried.append(x)
        return kernel(x)

    program = or_plain(counted, lambda: volumes)
    with pytest.warns(RuntimeWarning, match=f"the kernel on the chip {said}: the plain"):
        assert program(1.0)["liquidation_volume"].sum() == 12
    assert program(2.0)["liquidation_volume"].sum() == 24
    assert tried == [1.0]


def test_the_kernel_goes_on_where_it_says_the_same():
    program = or_plain(lambda x: volumes(x, 1e-4), lambda: volumes)
    assert program(1.0)["liquidation_volume"].sum() == 12
    assert program(1.0)["liquidation_volume"].sum() > 12
