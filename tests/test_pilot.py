"""A pilot on a small book: its tilts give the chances of brute force, and reach rarer ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Command, write_small
from scipy import stats
from stress_kernels.simulate import path_keys
from test_shocks import GBM, KOU, MERTON

from stress.config import Run, load_config
from stress.devices import choose
from stress.intervals import Weighed, probability
from stress.pilot import Event, Pilot, _Drawing, event_of, pilot
from stress.sampling import Importance
from stress.spec import InputError
from stress.tilting import Did, first_guess, refitted, tempered, ways

OWN = {"own": {"ETH": {"per_day": 2.0, "mean": 0.0, "sd": 0.04}}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = write_small(tmp_path_factory.mktemp("pilot"))
    return load_config(config, overrides={"shock": MERTON | OWN, "chunk": 1024})


@pytest.fixture(scope="module")
def drawing(run: Run) -> Iterator[_Drawing]:
    yield _Drawing(run, choose("cpu"), event_of(run, "here/main", None))


def test_print(run, drawing):
    keys = path_keys(jnp.uint32(1), jnp.int32(0), 4096)
    import time
    for i in range(3):
        t=time.time()
        out = drawing.simulated(drawing.built.shock.paths(keys), *drawing.tables)
        out = {k: np.asarray(v) for k,v in out.items()}
        print(time.time()-t, out["exhausted"].mean(), np.quantile(out["volume"],[.5,.9,.99,.999,1]), np.quantile(out["low"],[0,.001,.01,.1,1]))
