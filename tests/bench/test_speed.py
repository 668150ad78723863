"""How fast the step is, and what it does not depend on.

    uv run pytest tests/bench -n 0 --benchmark-only

Skipped otherwise. Times are of one chunk of paths that is already compiled; compare rows of one run, not runs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stress.bench import finish
from stress.config import Run, load_config
from stress.devices import choose
from stress.run import Simulation

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CHUNK, HOURS = 2048, 6


def chunk_of(benchmark, config: Run) -> None:
    """Time one chunk, and say how many path-steps it had."""
    simulation = Simulation.of(config, choose("cpu"))
    finish(simulation)
    benchmark.extra_info["path_steps"] = config.chunk * config.horizon_hours * 3600 // config.step_seconds
    benchmark.pedantic(lambda: finish(simulation), rounds=5)


def reference(**overrides) -> Run:
    return load_config(
        CONFIGS / "reference.toml", paths=CHUNK, overrides={"chunk": CHUNK, "horizon_hours": HOURS, **overrides}
    )


@pytest.mark.benchmark(group="positions behind the same tables")
@pytest.mark.parametrize("rows", [1_000, 100_000, 10_000_000])
def test_positions(benchmark, rows):
    """The step does not see how many positions there are: only the tables, of one size, and which rungs are filled."""
    chunk_of(benchmark, reference(**{"portfolio.population.rows": rows}))


@pytest.mark.benchmark(group="shock")
@pytest.mark.parametrize("volatility", [1e-6, 0.022, 0.06])
def test_volatility(benchmark, volatility):
    """From a day on which nothing triggers to one on which much does."""
    chunk_of(benchmark, reference(**{"shock.daily_volatility.BTC": volatility, "portfolio.population.rows": 100_000}))


@pytest.mark.benchmark(group="file to book")
@pytest.mark.parametrize("rows", [1_000_000, 10_000_000])
def test_positions_file(benchmark, rows, tmp_path):
    """A CSV file of positions to compiled ladders, every row checked."""
    import pyarrow as pa
    import pyarrow.csv as pacsv

    from stress.build import build

    draw = np.random.default_rng(1)
    size = draw.lognormal(0, 1.5, rows)
    side = draw.choice([-1.0, 1.0], rows)
    table = pa.table(
        {
            "venue": np.array(["binance", "bybit", "okx"])[draw.integers(0, 3, rows)],
            "account": np.arange(rows),
            "asset": np.array(["BTC", "ETH"])[draw.integers(0, 2, rows)],
            "quantity": np.round(side * size, 6) + side,
            "entry_price": np.full(rows, 100.0),
            "margin": np.round(100 * (size + 1) / draw.uniform(2, 20, rows), 4),
            "mode": np.full(rows, "isolated"),
        }
    )
    file = tmp_path / "positions.csv"
    pacsv.write_csv(table, file)
    config = reference(**{"prices.start": dict.fromkeys(("BTC", "ETH", "SOL", "XRP", "DOGE"), 100.0)})
    config = config.model_copy(
        update={"portfolio": config.portfolio.model_copy(update={"population": None, "positions": str(file)})}
    )
    benchmark.pedantic(lambda: build(config), rounds=1)
