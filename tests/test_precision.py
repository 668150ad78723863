"""32 bits hold: on the same prices, a run in 32 bits reports what one in 64 bits does, within its sampling error."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np
import pytest
from stress_kernels.simulate import path_keys, simulate

from stress import bench
from stress.build import build, on_device
from stress.config import Run
from stress.intervals import Estimate
from stress.results import coords, dataset
from stress.risk import Summary, summary

PATHS = 128


@pytest.fixture(scope="module", params=["calm", "crash"])
def both(request) -> dict[str, Summary]:
    """A day of every layer, and one with a fall of a fifth: summaries by the number of bits, of equal prices."""
    config = bench.cases(PATHS, 6)[request.param]
    log = None
    found = {}
    for dtype in ("float32", "float64"):
        run = config.model_copy(update={"dtype": dtype})
        with jax.enable_x64(dtype == "float64"):
            world, ladders, shock = on_device(build(run))
            if log is None:
                keys = path_keys(jax.numpy.uint32(run.seed), jax.numpy.int32(0), PATHS)
                log = np.asarray(jax.jit(shock.paths)(keys))
            out = jax.device_get(jax.jit(simulate)(log.astype(dtype), ladders, world))
        assert out["liquidation_volume"].dtype == dtype
        found[dtype] = summary(_opened(out, run))
    return found


def _opened(out: dict[str, np.ndarray], run: Run):
    return dataset({name: np.moveaxis(x, -1, 0) for name, x in out.items()}, coords(run), {})


def estimates(of: Summary) -> Iterator[tuple[str, Estimate]]:
    """Everything that is reported with an interval of the whole run, by name."""
    for level, estimate in of.hourly.quantiles.items():
        yield f"hour, {level}", estimate
    yield "shortfall", of.shortfall
    yield "some hour", of.some_hour_above
    yield "day", of.day_above
    for name, pool in of.pools.items():
        yield f"exhausted {name}", pool.exhausted
        for level, estimate in pool.drawdown.quantiles.items():
            yield f"drawdown {name}, {level}", estimate
    for name, volume in of.adl.items():
        for level, estimate in volume.quantiles.items():
            yield f"adl {name}, {level}", estimate


def test_no_figure_moves_by_its_sampling_error(both):
    single, double = dict(estimates(both["float32"])), dict(estimates(both["float64"]))
    assert single.keys() == double.keys()
    assert both["float64"].hourly.quantiles[0.5].value > 0
    for name, estimate in double.items():
        # Above a rare quantile the few paths here know no end.
        width = (estimate.high if np.isfinite(estimate.high) else estimate.value) - estimate.low
        assert abs(single[name].value - estimate.value) <= 0.1 * width, name


def test_means_agree_to_five_digits(both):
    single, double = both["float32"], both["float64"]
    assert single.hourly.mean == pytest.approx(double.hourly.mean, rel=1e-5)
    for name, pool in double.pools.items():
        # Funds hold about a billion, of which 32 bits know 64 USD.
        assert single.pools[name].drawdown.mean == pytest.approx(pool.drawdown.mean, rel=1e-2, abs=64), name
