"""The fast kernels give what the engine gives, and know what they do not know.

That of a GPU is run as ordinary array programs here, in which it is the same program but for the threads.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh
from reference.ladder_days import BEHIND, DAYS, LIMITS, PATHS, alike, config
from stress_kernels.chip import on_chip
from stress_kernels.native import on_core
from stress_kernels.simulate import simulate

from stress import fast, native
from stress.build import Built, build, on_device
from stress.devices import Devices, choose
from stress.programs import GIVEN_UP, interpreted, or_plain, simulated, simulated_natively, simulated_on_chip
from stress.run import Simulation
from stress.spec import InputError

KERNELS = {"chip": partial(on_chip, lanes=16, interpret=True), "native": on_core}
needs_compiler = pytest.mark.skipif(bool(native.lacking()), reason=native.lacking())
each_kernel = pytest.mark.parametrize("kernel", ["chip", pytest.param("native", marks=needs_compiler)])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(config(tmp_path_factory.mktemp("ample")))


Programs = dict[str, Callable[[np.ndarray, Built], Any]]


@pytest.fixture(scope="module")
def programs(built: Built) -> Programs:
    """Of log indices and a run: the engine, and the kernels, which also say which paths they give up."""

    def compiled(program: Callable[..., Any]) -> Callable[[np.ndarray, Built], Any]:
        jitted = jax.jit(program)

        def call(log: np.ndarray, of: Built) -> Any:
            world, ladders, _ = on_device(of)
            return jax.device_get(jitted(jnp.asarray(log), ladders, world))

        return call

    return {name: compiled(program) for name, program in (KERNELS | {"engine": simulate}).items()}


@each_kernel
@pytest.mark.parametrize("day", DAYS)
def test_it_gives_what_the_engine_gives(kernel, day, built, programs):
    (ours, unknown), engines = programs[kernel](DAYS[day], built), programs["engine"](DAYS[day], built)
    assert not unknown.any()
    assert ours["liquidation_volume"].sum(axis=(0, 2, 3, 4)).min() > 1e5
    alike(ours, engines, np.ones(PATHS, bool))


@each_kernel
@pytest.mark.parametrize("impact", [{"i_ref": 0.0}, {"i_ref": 0.01, "rho": 1.0}, {"i_ref": 0.01, "rho": 0.0}])
def test_it_does_where_orders_press_nothing_or_one_price_alone(kernel, impact, tmp_path, programs):
    without = build(config(tmp_path, impact=impact))
    (ours, unknown), engines = programs[kernel](DAYS["fall"], without), programs["engine"](DAYS["fall"], without)
    assert not unknown.any()
    alike(ours, engines, np.ones(PATHS, bool))


@each_kernel
def test_an_account_too_small_for_the_sums_is_counted(kernel, tmp_path, programs):
    """Of a ladder that holds 10^9 USD in front of its 10 USD."""
    file, run = tmp_path / "two.csv", config(tmp_path)
    lines = ["venue,account,asset,quantity,entry_price,margin,mode"]
    lines += ["two,1,BTC,10000000,100,100000000,isolated", "two,2,BTC,0.1,100,2,isolated"]
    file.write_text("\n".join([*lines, ""]))
    data = run.model_dump(mode="json")
    for venue in data["venues"].values():
        for market in venue["markets"].values():
            market |= {"adv_usd": 1e14, "throughput_usd_per_minute": 1e12}
    small = build(type(run).model_validate(data | {"portfolio": {"positions": str(file)}}))
    log = np.zeros_like(DAYS["fall"])
    log[40:], log[70:] = -0.12, -0.3
    (ours, unknown), engines = programs[kernel](log, small), programs["engine"](log, small)
    assert not unknown.any()
    assert engines["accounts_liquidated"][:, 1, 0].tolist() == [0, 1, 1]
    np.testing.assert_array_equal(ours["accounts_liquidated"], engines["accounts_liquidated"])


@each_kernel
@pytest.mark.parametrize("limit", LIMITS)
def test_it_gives_up_what_it_does_not_know(kernel, limit, tmp_path, programs):
    tight = build(config(tmp_path, **LIMITS[limit]))
    log = np.where(np.arange(PATHS) % 2, DAYS["calm"], DAYS["jump"])
    (ours, unknown), engines = programs[kernel](log, tight), programs["engine"](log, tight)
    assert 0 < unknown.sum() < PATHS
    alike(ours, engines, ~unknown)


@needs_compiler
@pytest.mark.parametrize("day", ["jump", "squeeze"])
@pytest.mark.parametrize("behind", BEHIND)
def test_the_native_kernel_knows_what_goes_behind_the_book(behind, day, tmp_path, programs):
    of = build(config(tmp_path, **BEHIND[behind]))
    (ours, unknown), engines = programs["native"](DAYS[day], of), programs["engine"](DAYS[day], of)
    assert not unknown.any()
    for name, layer in (("auction", 1), ("multiple", 2)):
        assert bool(engines["absorbed_volume"][:, 0, :, layer].sum(axis=(0, 1)).min() > 1e3) == (name in BEHIND[behind])
    alike(ours, engines, np.ones(PATHS, bool))


@needs_compiler
def test_a_price_of_nothing_is_a_price(tmp_path, programs):
    """In the engine too, while pools hold what they have taken over: one market sells at no rate."""
    of, log = build(config(tmp_path, **BEHIND["pools that hold"])), np.array(DAYS["jump"])
    log[60:, 1, 4] -= 18
    (ours, unknown), engines = programs["native"](log, of), programs["engine"](log, of)
    assert not unknown.any()
    assert np.isfinite(engines["fund_equity"]).all()
    alike(ours, engines, np.arange(PATHS) != 4)


@needs_compiler
def test_a_path_without_a_price_is_given_up(built, programs):
    log = np.array(DAYS["fall"])
    log[50, 1, 3] = np.nan
    ours, unknown = programs["native"](log, built)
    assert np.flatnonzero(unknown).tolist() == [3]
    engines = programs["native"](DAYS["fall"], built)[0]
    np.testing.assert_array_equal(ours["liquidation_volume"][..., :3], engines["liquidation_volume"][..., :3])


SAMPLINGS = {"independent": {}, "mirrored": {"sampling": {"kind": "antithetic"}}}


@needs_compiler
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_what_it_gives_up_is_done_again(sampling, tmp_path, monkeypatch):
    """In whole runs, whose paths are the same to the last bit however they are cut into chunks."""
    wild = {"kind": "gbm", "correlation": 0.5, "daily_volatility": dict.fromkeys(("BTC", "ETH", "SOL"), 0.02)}
    run = config(tmp_path, **LIMITS["a book that does not take all"])
    changed = run.model_dump(mode="json") | SAMPLINGS[sampling] | {"shock": wild, "paths": 80, "chunk": 16}
    run, devices = type(run).model_validate(changed), choose("cpu")

    def whole(chunk: int) -> dict[str, np.ndarray]:
        simulation = Simulation.of(run.model_copy(update={"chunk": chunk}), devices)
        parts = [arrays for _, arrays in simulation.chunks(range(-(-run.paths // chunk)))]
        assert not any(GIVEN_UP in part for part in parts)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    monkeypatch.delenv(fast.SWITCH, raising=False)
    ours, cut = whole(80), whole(16)
    given_up = [block[GIVEN_UP] for block in Simulation.of(run, devices).compute(range(5))]
    assert 0 < np.concatenate(given_up)[: run.paths].sum() < run.paths
    for name, values in ours.items():
        np.testing.assert_array_equal(cut[name], values, err_msg=name)
    monkeypatch.setenv(fast.SWITCH, "plain")
    plain = whole(16)
    assert Simulation.of(run, devices).kernel == "plain"
    for of in (ours, plain):
        of.update({name: np.moveaxis(x, 0, -1) for name, x in of.items()})
    alike(ours, plain, np.ones(run.paths, bool))


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
    monkeypatch.delenv(fast.SWITCH, raising=False)
    assert fast.block_of(built, gpu()) is simulated_on_chip
    assert fast.block_of(built, gpu("7.5")) is simulated
    cpu = Devices("cpu", tuple(jax.devices("cpu")))
    assert fast.block_of(built, cpu) is (simulated if native.lacking() else simulated_natively)
    monkeypatch.setattr(native, "lacking", lambda: "there is no g++")
    assert fast.block_of(built, cpu) is simulated
    monkeypatch.setenv(fast.SWITCH, "interpret")
    assert fast.block_of(built, gpu(platform="cpu")) is interpreted
    monkeypatch.setenv(fast.SWITCH, "plain")
    assert fast.block_of(built, gpu()) is simulated
    monkeypatch.setenv(fast.SWITCH, "yes")
    with pytest.raises(InputError, match="LIQSTRESS_KERNEL is 'yes', expected 'plain' or 'interpret'"):
        fast.block_of(built, gpu())


def test_a_run_with_more_than_it_knows_goes_to_the_engine(built, monkeypatch):
    monkeypatch.delenv(fast.SWITCH, raising=False)
    world, ladders = built.world, built.ladders
    there = np.ones((1, 1))
    more = {
        "accounts on cross margin": replace(built, accounts=there),
        "exact triggers": replace(built, ladders=replace(ladders, probes=1)),
        "entry classes": replace(built, ladders=replace(ladders, rows=np.repeat(ladders.rows, 2, axis=3))),
        "stop orders": replace(built, ladders=replace(ladders, stops=there)),
        "double precision": replace(built, ladders=replace(ladders, rows=np.asarray(ladders.rows, np.float64))),
        "overlays": replace(built, world=replace(world, conditions=replace(world.conditions, thinness=there))),
        "deleveraging at any fall": replace(
            built, world=replace(world, rules=replace(world.rules, adl_share=np.array([0.0, 2.0])))
        ),
        "pools without money": replace(built, world=replace(world, pool_cash=np.array([1e9, 0.0]))),
        "coins as money": replace(built, world=replace(world, inverse=there)),
        "vaults": replace(built, world=replace(world, vaults=there)),
        "transfers between pools": replace(built, world=replace(world, transfers=there)),
        "circuit breakers": replace(built, world=replace(world, breakers=there)),
        "behaviour": replace(built, world=replace(world, behaviour=there)),
    }
    assert fast.missing(built) == []
    for what, of in more.items():
        assert fast.missing(of) == [what]
        assert fast.block_of(of, gpu()) is simulated


def volumes(x: float, off: float = 0.0) -> dict[str, np.ndarray]:
    """Of two paths and three hours; by how much the second hour is off."""
    volume = np.full((2, 3, 1, 1, 2), x)
    volume[:, 1] *= 1 + off
    return {"liquidation_volume": volume, GIVEN_UP: np.zeros(2, bool)}


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
