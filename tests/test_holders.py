"""Behaviour of holders in a config: what is refused, what the tables hold, and what a config without it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import ROOT
from reference.small import market, positions_of, run_of, venue, write_positions
from test_results import synthetic

from stress.build import Built, build
from stress.comparison import measures
from stress.config import Run, load_config
from stress.digests import config_json, digest
from stress.risk import summary_table
from stress.spec import InputError, validate

ROWS = [(0, 0, 1e4, 100.0, 1e5, 2.0), (0, 0, 5e3, 100.0, 2.5e4, 1.0), (0, 0, 1e3, 100.0, 2e5, 1.0)]
"""Longs of ten and twenty times leverage, and one that no price liquidates."""
STOPS = {"adoption": 0.25, "nearest": 0.5, "farthest": 0.5}


def configured(folder: Path, **changes: Any) -> Run:
    """One market, and three accounts in it."""
    file, breaker = folder / "positions.parquet", changes.pop("breaker", None)
    write_positions(file, positions_of(ROWS, ballast=0), ["one"], ["A"])
    place = venue("one", {"A": market()}) | ({"breaker": breaker} if breaker else {})
    return run_of([place], {"A": 0.025}, file, **changes)


def built(folder: Path, **changes: Any) -> Built:
    return build(configured(folder, **changes))


def coins(made: Built) -> np.ndarray:
    """On the ladders of forced orders and of stop orders of longs."""
    return np.asarray(made.ladders.rows)[0, 0, 0, :, -1, 0:12:2].sum(axis=-1)


def test_adoption_of_nobody_changes_nothing_to_the_bit(tmp_path: Path) -> None:
    plain, nobody = built(tmp_path), built(tmp_path, behaviour={"stop_losses": STOPS | {"adoption": 0}})
    assert jax.tree.structure(plain.ladders) == jax.tree.structure(nobody.ladders)
    jax.tree.map(np.testing.assert_array_equal, plain.ladders, nobody.ladders)


def test_stops_lie_on_the_way_and_are_a_share_of_copies(tmp_path: Path) -> None:
    """Triggers of ten and twenty times: 90 / 0.99 and 95 / 0.99 USD; half of the way there from 100."""
    made = built(tmp_path, behaviour={"stop_losses": STOPS})
    share = 0.25 * np.array([2e6, 5e5]).sum()
    np.testing.assert_allclose(coins(made), [2.6e6 - share, share])
    depth = np.asarray(made.ladders.depth)[0, 0, 0, 1]
    expected = -np.log(1 + 0.5 * (np.array([0.95, 0.9]) / 0.99 - 1))
    np.testing.assert_allclose(np.sort(depth[np.isfinite(depth)]), expected, rtol=1e-9)
    assert made.book.stops_usd == pytest.approx((share, 0.0))
    spread = built(tmp_path, behaviour={"stop_losses": STOPS | {"nearest": 0.2, "farthest": 0.6, "adoption": 1}})
    np.testing.assert_allclose(coins(spread), [1e5, 2.5e6])
    depth = np.asarray(spread.ladders.depth)[0, 0, 0, 1]
    way = (1 - np.exp(-depth[np.isfinite(depth)])) / (1 - 0.9 / 0.99)
    assert np.sum(np.isclose(way[:, None], [0.25, 0.35, 0.45, 0.55], rtol=1e-9)) == 4


def test_a_support_level_is_paid_in_full_and_counts_in_open_interest(tmp_path: Path) -> None:
    level = {"kind": "support", "asset": "A", "move": -0.08, "width": 0.016, "usd": 3e6}
    made = built(tmp_path, overlays=[level])
    np.testing.assert_allclose(coins(made), [2.6e6, 3e6])
    depth = np.asarray(made.ladders.depth)[0, 0, 0, 1]
    moves = np.sort(np.expm1(-depth[np.isfinite(depth)]))
    np.testing.assert_allclose(moves, -0.088 + 0.001 * (np.arange(16) + 0.5), rtol=1e-9)
    assert made.held[0, 0, 0] == pytest.approx(5.6e6)


def test_margins_twice_as_wide_bring_triggers_nearer(tmp_path: Path) -> None:
    """From p_b / 0.99 to p_b / 0.98, the same for every account in a market of one rate."""
    breaker = {"move": 0.1, "minutes": 5, "pause_minutes": 60, "margin_times": 2}
    made = built(tmp_path, breaker=breaker)
    assert made.ladders.widened is not None
    np.testing.assert_allclose(made.ladders.widened[0, 0, 0, 0, 0], np.log(0.99 / 0.98), rtol=1e-9)
    assert built(tmp_path, breaker=breaker | {"margin_times": None}).ladders.widened is None


def test_top_ups_move_the_triggers_of_a_part(tmp_path: Path) -> None:
    """Half of an equity of 10 and 5 % more: bankruptcy at 85 and 92.5 USD for four in ten."""
    made = built(tmp_path, behaviour={"top_ups": {"share": 0.4, "multiple": 0.5}})
    depth = np.asarray(made.ladders.depth)[0, 0, 0, 0]
    expected = -np.log(np.array([0.95, 0.925, 0.9, 0.85]) / 0.99)
    np.testing.assert_allclose(np.sort(depth[np.isfinite(depth)]), expected, rtol=1e-9)
    np.testing.assert_allclose(coins(made), [2.6e6])


def test_a_config_without_behaviour_keeps_its_name(tmp_path: Path) -> None:
    """What came later is not in what is hashed and stored, unless it is used."""
    breaker = {"move": 0.1, "minutes": 5, "pause_minutes": 60}
    plain = configured(tmp_path, breaker=breaker)
    assert "behaviour" not in config_json(plain)
    assert "margin_times" not in config_json(plain)
    other = configured(tmp_path, breaker=breaker, behaviour={"stop_losses": STOPS})
    assert "behaviour" in config_json(other)
    assert digest(other) != digest(plain)
    assert load_config(ROOT / "configs" / "quickstart.toml").behaviour is None


LEVEL = {"kind": "support", "asset": "A", "move": -0.08, "usd": 1e6}
WRONG = {
    "order": ({"behaviour": {"stop_losses": STOPS | {"nearest": 0.6}}}, "nearest is 0.6 of the way, expected at most"),
    "at the trigger": ({"behaviour": {"stop_losses": STOPS | {"farthest": 1}}}, "farthest is 1, expected less than 1"),
    "a share": ({"behaviour": {"stop_losses": STOPS | {"adoption": 2}}}, "adoption is 2, expected less than or equal"),
    "top-up": ({"behaviour": {"top_ups": {"share": 0.5, "multiple": 0}}}, "multiple is 0, expected greater than 0"),
    "level": ({"overlays": [LEVEL | {"move": 0.001}]}, "move is 0.001 with a width of 0.01, expected a level on"),
    "asset": ({"overlays": [LEVEL | {"asset": "X"}]}, "overlays[0].asset is 'X', expected an asset of the run (A)"),
    "venue": ({"overlays": [LEVEL | {"venues": ["two"]}]}, "overlays[0].venues is 'two', expected venues without"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_behaviour_is_refused(name: str, tmp_path: Path) -> None:
    changes, words = WRONG[name]
    data = configured(tmp_path).model_dump(mode="json") | changes
    with pytest.raises(InputError) as caught:
        validate(Run, data, "run.toml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


CROSS = """venue,account,asset,quantity,entry_price,margin,mode
one,1,A,100,100,,cross
one,1,B,-100,100,,cross
"""


@pytest.mark.parametrize("what", ["stop_losses", "top_ups", "margin_times"])
def test_accounts_followed_one_by_one_have_none_of_it(what: str, tmp_path: Path) -> None:
    (tmp_path / "positions.csv").write_text(CROSS)
    (tmp_path / "collateral.csv").write_text("venue,account,token,amount\none,1,USD,5000\n")
    place = venue("one", {"A": market(), "B": market()})
    rules = {"stop_losses": STOPS, "top_ups": {"share": 0.5, "multiple": 1}}
    more = {"behaviour": {what: rules[what]}} if what in rules else {}
    if what == "margin_times":
        place["breaker"] = {"move": 0.1, "minutes": 5, "pause_minutes": 60, "margin_times": 2}
    files = {name: str(tmp_path / f"{name}.csv") for name in ("positions", "collateral")}
    run = run_of([place], {"A": 0.025, "B": 0.025}, None, portfolio=files, **more)
    with pytest.raises(InputError, match=rf"{what} is (given|2), expected none: .*Leave it out"):
        build(run)


def test_stop_orders_are_printed_and_compared_where_there_are_any() -> None:
    ds = synthetic(paths=40, hours=3)
    assert not [row for row in summary_table(ds) if row.group == "stop orders"]
    ds["stop_volume"][:, 1] = 1e6
    mean, _ = (row for row in summary_table(ds) if row.group == "stop orders")
    assert mean.value == "30.0 M USD"
    found = {measure.name: measure.values for measure in measures(ds, stops=True)}
    np.testing.assert_allclose(found["closed by stop orders"], 30e6)
    before = ds.drop_vars("stop_volume")
    assert not [row for row in summary_table(before) if row.group == "stop orders"]
    assert len(measures(before, stops=True)) == len(found)
