"""A large account that loses money elsewhere: against the slow twin, and what is refused."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from reference import twin as slow
from reference.bridge import HOURLY, OF_LOSSES, engine, log_returns, outputs, twin_accounts, twin_world, watch_as_often
from reference.small import crowd, market, pool, positions_of, run_of, two_way, venue, write_positions
from reference.twin import Accounts

from stress.build import build
from stress.config import Run
from stress.portfolio import Positions
from stress.spec import InputError

ASSETS = {"A": 0.025, "B": 0.03}
DESK = {"kind": "default", "venue": "two", "positions": {"A": 8e6, "B": -3e6}, "equity_usd": 2e6, "start_minutes": 30}


def defaulting(folder: Path, *overlays: dict[str, Any]) -> tuple[Run, Positions]:
    """Two venues of isolated positions, whose books take little. What neither book nor pool takes is closed at the
    mark: whom deleveraging closes is not the same on ladders where a path goes both ways."""
    positions = positions_of(crowd(np.random.default_rng(1), [(0, 0), (0, 1), (1, 0), (1, 1)]))
    file = folder / "positions.parquet"
    write_positions(file, positions, ["one", "two"], list(ASSETS))
    thin = market(take_bound_bps=30, unwind_usd_per_minute=3e5)
    rules = {"ranking": "pro_rata", "close_at": "mark", "drawdown_window_hours": 8, "leftover": False}
    pools = [pool(1e8, 0.05)]
    places = [venue(name, dict.fromkeys(ASSETS, thin), pools=pools, adl=rules) for name in ("one", "two")]
    return run_of(places, ASSETS, file, impact={"i_ref": 0.01}, overlays=list(overlays)), positions


@pytest.fixture(scope="module", autouse=True)
def in_64_bits():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(
    ("loss", "minute"), [(1.7e6, 30), (1.9e6, 0), (2.6e6, 70.5)], ids=["to the margin", "at once", "beyond its equity"]
)
def test_a_desk_that_fails_is_closed_as_the_twin_closes_it(
    loss: float, minute: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch_as_often(monkeypatch)
    run, positions = defaulting(tmp_path, DESK | {"loss_usd": loss, "start_minutes": minute})
    built = build(run)
    assert built.accounts is not None
    path = 0.3 * two_way(np.random.default_rng(2), 120, 4)
    ours = engine(path, built, accounts=built.accounts)
    world, alone = twin_world(run, positions, built.start_price), twin_accounts(positions, 2)
    desk = Accounts(
        venue=np.array([1]), quantity=np.array([[8e4, -3e4]]), entry=np.full((1, 2), 100.0), cash=np.array([2e6]),
        coins=np.zeros((1, 2)), count=np.ones(1),
    )  # fmt: skip
    fields = ("venue", "quantity", "entry", "cash", "coins", "count")
    everyone = Accounts(*(np.concatenate([getattr(alone, name), getattr(desk, name)]) for name in fields))
    lost = np.zeros((120, len(everyone.cash)))
    lost[int(minute), -1] = loss
    theirs = [
        outputs([slow.simulate(world, everyone, log_returns(x), unusual={"loss": lost})], world)
        for x in np.moveaxis(path, -1, 0)
    ]
    volume = ours["liquidation_volume"].sum(axis=(0, 1, 2, 3))
    assert volume.min() > 1e7
    for name in set(HOURLY) - {"adl_accounts", *OF_LOSSES}:
        expected = np.concatenate([each[name] for each in theirs], axis=-1)
        scale = 1e-7 * volume.max() if np.nanmax(np.abs(expected), initial=0.0) > 1e3 else 1e-6
        np.testing.assert_allclose(ours[name], expected, rtol=1e-6, atol=scale, err_msg=name)
    assert np.max(ours["ledger_residual"]) < 1e-12


def test_without_its_loss_the_desk_stays(tmp_path: Path) -> None:
    volumes = []
    for loss in (1e3, 1.9e6):
        run, _ = defaulting(tmp_path, DESK | {"loss_usd": loss})
        built = build(run)
        volumes.append(engine(np.zeros((120, 2, 4)), built, accounts=built.accounts)["liquidation_volume"].sum())
    assert volumes[0] == 0
    assert volumes[1] == pytest.approx(4 * 11e6, rel=0.01)


WRONG = {
    "venue": ({"venue": "three"}, "overlays[0].venue is 'three', expected a venue of the run (one, two). Correct it."),
    "asset": ({"positions": {"C": 1e6}}, "overlays[0].positions names 'C', expected a linear market of 'two' in an"),
    "nothing": ({"positions": {}}, "overlays[0].positions"),
    "late": ({"start_minutes": 120}, "overlays[0].start_minutes is 120 min, expected less than the run's 120 min."),
    "loss": ({"loss_usd": 0}, "overlays[0].loss_usd is 0, expected greater than 0."),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_default_is_refused(name: str, tmp_path: Path) -> None:
    change, words = WRONG[name]
    with pytest.raises(ValueError, match="overlays") as caught:
        defaulting(tmp_path, DESK | {"loss_usd": 1e6} | change)
    if name not in ("nothing", "loss"):
        assert words in str(caught.value)


def test_a_desk_without_margin_is_refused(tmp_path: Path) -> None:
    run, _ = defaulting(tmp_path, DESK | {"loss_usd": 1e6, "equity_usd": 1e3})
    with pytest.raises(InputError, match=r"overlays\[0\].equity_usd is 1000 USD, expected more than the \d+ USD"):
        build(run)
