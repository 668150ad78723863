"""What all tests share: JAX on the CPU, checks of shapes, and one small run whose program is compiled once."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import pytest
from jaxtyping import install_import_hook
from typer.testing import CliRunner

# Before anything imports these: what their functions take and return has the shapes that they say.
install_import_hook(["stress_kernels", "stress.fits", "stress.history", "stress.prices"], "beartype.beartype")

from stress.cli import app  # noqa: E402

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"

SMALL = """
name = "small"
seed = 3
paths = 40
chunk = 16
horizon_hours = 1
step_seconds = 120
rounds = 2

[assets.BTC]
daily_volatility = 0.05

[assets.ETH]
daily_volatility = 0.06

[prices.start]
BTC = 100
ETH = 10

[portfolio]
positions = "positions.csv"
block_usd = 1000

[shock]
kind = "gbm"
correlation = 0.5
daily_volatility = { BTC = 0.05, ETH = 0.06 }

[venues]
here = "here.toml"
"""
"""Two assets at one venue and accounts that move of a few per cent closes."""

POSITIONS = """venue,account,asset,quantity,entry_price,margin,mode,count
here,1,BTC,10,100,12,isolated,50
here,2,BTC,10,101,40,isolated,20
here,3,BTC,-10,99,25,isolated,30
here,4,ETH,100,10,9,isolated,40
here,5,ETH,-100,10,11,isolated,40
here,6,ETH,-100,9.9,300,isolated,40
"""

MARKET = """
[markets.{asset}]
adv_usd = 1e6
take_bound_bps = 500
throughput_usd_per_minute = 1e5
auction_usd_per_hour = 1000
auction_discount_bps = 100
unwind_usd_per_minute = 1000
source = "made up for tests"
tiers_source = "made up for tests"
tiers = [{{ floor_usd = 0, rate = 0.005 }}, {{ floor_usd = 5000, rate = 0.01 }}]
"""

VENUE = """
name = "here"
source = "made up for tests"
liquidation_fee_bps = 50
fee_in_trigger = false
surplus_to = "pool"
mark = "median"
mark_window_minutes = 30
staging = { kind = "full" }
adl = { ranking = "queue", close_at = "bankruptcy" }
funding = { interval_hours = 8, interest = 0.0001, clamp = 0.0005, cap = 0.003, source = "made up for tests" }
pools = [{ name = "main", equity_usd = 500, takeover_multiple = 3, source = "made up for tests" }]
""" + "".join(MARKET.format(asset=asset) for asset in ("BTC", "ETH"))


_MAPPED = 30_000
"""Pieces of memory after which programs are dropped; Linux gives a process 65,530, and a program may take 2,000."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update` writes anew what tests compare with."""
    parser.addoption("--update", action="store_true", help="write golden files anew")


@pytest.fixture(autouse=True)
def few_programs() -> Iterator[None]:
    """Drop compiled programs before there are so many that the next one finds no memory to map and the tests die."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > _MAPPED:
        jax.clear_caches()
        gc.collect()


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture(scope="session")
def liqstress() -> Command:
    """The command line, in this process."""

    def command(*words: str | Path) -> Outcome:
        result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return command


def write_small(folder: Path) -> Path:
    """A small config with its files in a folder; the config's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("run.toml", SMALL), ("here.toml", VENUE), ("positions.csv", POSITIONS)):
        (folder / name).write_text(text, encoding="utf-8")
    return folder / "run.toml"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small config of one's own, to change."""
    return write_small(tmp_path)


class Finished(NamedTuple):
    """A run that is done: its config, its store, and what the command said. To be copied before it is changed."""

    config: Path
    store: Path
    said: Outcome

    def copy(self, folder: Path) -> Path:
        """A store of one's own, pictures left out."""
        return shutil.copytree(self.store, folder / "copy.zarr")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, liqstress: Command) -> Finished:
    """The small run, done once through the command line."""
    folder = tmp_path_factory.mktemp("finished")
    config, store = write_small(folder), folder / "deep" / "small.zarr"
    return Finished(config, store, liqstress("run", config, "--out", store))
