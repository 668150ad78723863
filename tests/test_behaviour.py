"""Makers that leave, holders that close, and fresh accounts against the slow twin, where the ladder is exact.

One program serves all: what a case leaves out is there with a share of nothing, or a spike that never comes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from reference.bridge import HOURLY, OF_LOSSES, engine, twin_of, watch_as_often
from reference.small import crash, crowd, market, positions_of, run_of, two_way, venue, write_positions

from stress.behaviour import NO_INFLOW, Behaviour
from stress.build import build
from stress.config import Run
from stress.digests import config_json, digest
from stress.portfolio import Positions
from stress.spec import InputError, validate

PATHS, STEPS = 4, 120
ASSETS = {"A": 0.025, "B": 0.03}
NEVER = {"move": 1e3, "minutes": 30, "source": "made up"}
SPIKE = {"move": 3.0, "minutes": 30, "source": "made up"}
LEAVE = {"share": 0.6, "return_minutes": 45}
CLOSE = {"per_hour": 0.4, "calm_minutes": 40}
INFLOW = {
    "per_day": 3.0, "held_hours": 0.75, "cohorts": 3, "least_leverage": 8, "most_leverage": 60, "account_usd": 1e5,
    "levels": 8, "source": "made up",
}  # fmt: skip
BARELY = INFLOW | {"per_day": 1e-12}
FUNDING = {"interval_hours": 0.25, "interest": 1e-3, "clamp": 5e-3, "cap": 2e-2, "source": "made up"}
SHORT_BOOK = {"take_bound_bps": 30}
AT_THE_MARK = {"adl": {"ranking": "queue", "close_at": "mark", "drawdown_window_hours": 8, "leftover": False}}
"""What the layers leave is closed at the mark: no winner is closed, whom a ladder knows by his class alone."""
BY_PROFIT = {"adl": {"ranking": "pro_rata", "close_at": "mark", "drawdown_window_hours": 8}}
MAKERS = SHORT_BOOK | {"auction_usd_per_hour": 2e7}
MONEY = {
    "liquidation_volume", "absorbed_volume", "deficit", "surplus", "fund_equity", "fund_low", "adl_volume",
    "adl_haircut", "adl_overshoot", "socialised_loss", "open_interest", "first_round_volume", "fund_drawdown",
    "voluntary_volume", "opened_volume",
}  # fmt: skip


def late_jump(rng: np.random.Generator, steps: int, paths: int) -> np.ndarray:
    """Log indices that jump once and stand still: what a jump triggers waits while three cohorts have their turn."""
    level = np.zeros((steps, 2, paths))
    level[62:] = np.log(rng.choice([0.85, 0.9, 1.1, 1.15], paths, replace=False))
    return level


def jump_at_a_turn(rng: np.random.Generator, steps: int, paths: int) -> np.ndarray:
    """Log indices that jump in the step in which the fourth cohort opens: its rounds do not suffice."""
    level = np.zeros((steps, 2, paths))
    level[59:] = np.log([0.96, 0.98, 1.02, 1.04])
    return level


CASES: dict[str, dict[str, Any]] = {
    "makers leave": {"makers": SPIKE, "market": MAKERS, "venue": AT_THE_MARK},
    "holders close": {"close": SPIKE},
    "holders close, funding, median": {"close": SPIKE, "venue": {"funding": FUNDING}},
    "fresh accounts": {"inflow": INFLOW},
    "fresh accounts, mostly short, funding": {"inflow": INFLOW | {"long_share": 0.2}, "venue": {"funding": FUNDING}},
    "all": {
        "makers": SPIKE, "close": SPIKE, "inflow": INFLOW, "market": MAKERS,
        "venue": AT_THE_MARK | {"liquidation_fee_bps": 50},
    },
    "fresh accounts past their triggers": {
        "inflow": INFLOW, "impact": 0.02, "venue": AT_THE_MARK, "path": jump_at_a_turn,
    },
    "fresh accounts that wait": {
        "inflow": INFLOW, "market": {"throughput_usd_per_minute": 3e6}, "impact": 0.0, "path": late_jump,
        "differs": ("fund_low", "fund_drawdown"),
    },
    "all, winners are closed": {
        "makers": SPIKE, "close": SPIKE, "inflow": INFLOW, "market": SHORT_BOOK, "venue": BY_PROFIT, "path": crash,
    },
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def in_64_bits():
    with jax.enable_x64(True):
        yield


def config(folder: Path, case: dict[str, Any]) -> tuple[Run, Positions]:
    """A run of two venues and two assets, and its positions."""
    rng = np.random.default_rng(1)
    entry = 100.0 if case.get("path") is crash else None
    positions = positions_of(crowd(rng, [(0, 0), (0, 1), (1, 0), (1, 1)], entry))
    file = folder / "positions.parquet"
    write_positions(file, positions, ["one", "two"], list(ASSETS))
    places = [venue(v, {a: market(**case.get("market", {})) for a in ASSETS}, **case.get("venue", {}))
              for v in ("one", "two")]  # fmt: skip
    behaviour = {
        "makers_leave": LEAVE | case.get("makers", NEVER),
        "deleveraging": CLOSE | case.get("close", NEVER),
        "inflow": case.get("inflow", BARELY),
    }
    impact = {"i_ref": case.get("impact", 0.01)}
    # So few that some accounts are past their triggers when a step ends
    return run_of(places, ASSETS, file, rounds=1, impact=impact, behaviour=behaviour), positions


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_accounts_do_one_by_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch_as_often(monkeypatch)
    case = CASES[name]
    run, positions = config(tmp_path, case)
    built = build(run)
    assert built.book.exact
    path = case.get("path", two_way)(np.random.default_rng(2), STEPS, PATHS)
    ours, theirs = engine(path, built), twin_of(path, run, positions, built)
    volume = theirs["liquidation_volume"].sum(axis=(0, 1, 2, 3))
    assert (theirs["opened_volume"].sum() > 1e6) == ("inflow" in case)
    assert (theirs["voluntary_volume"].sum() > 1e6) == ("inflow" in case or "close" in case)
    wrong = []
    for output in set(HOURLY) - {"adl_accounts", *OF_LOSSES, *case.get("differs", ())}:
        allowed = 1e-7 * volume if output in MONEY else 1e-6
        apart = np.abs(ours[output] - theirs[output])
        both_nan = np.isnan(ours[output]) & np.isnan(theirs[output])
        if not np.all(both_nan | (apart <= allowed)):
            wrong.append(f"{output}: {np.nanmax(apart):.3g} of {np.nanmax(np.abs(theirs[output])):.3g}")
    assert not wrong, wrong
    assert np.max(ours["ledger_residual"]) < 1e-12


def test_on_a_calm_day_cohorts_follow_each_other(tmp_path: Path) -> None:
    """One every 15 minutes, of 3 a day x 15 minutes of what each market side holds; the fourth replaces the first."""
    run, positions = config(tmp_path, {"inflow": INFLOW})
    out = engine(np.zeros((STEPS, 2, PATHS)), build(run))
    usd = np.zeros((2, 2, 2))
    side = (positions.quantity < 0).astype(int)
    np.add.at(usd, (positions.venue, positions.asset, side), np.abs(positions.quantity) * 100 * positions.count)
    each = 3.0 / 96 * usd[..., None] + np.zeros(PATHS)
    np.testing.assert_allclose(out["opened_volume"], np.stack([4 * each, 4 * each]), rtol=1e-9)
    np.testing.assert_allclose(out["voluntary_volume"], np.stack([each, 4 * each]), rtol=1e-9)
    assert out["liquidation_volume"].sum() == 0
    # three cohorts at a time; the rest of the market holds what longs and shorts differ by
    one_sided = np.maximum(usd[:, :, 0], usd[:, :, 1])[..., None] * (1 + 3 * 3 / 96) + np.zeros(PATHS)
    np.testing.assert_allclose(out["open_interest"], np.stack([one_sided, one_sided]), rtol=1e-9)


def test_without_behaviour_a_config_is_what_it_was(tmp_path: Path) -> None:
    """Neither its text nor its hash says that there is such a thing."""
    run, _ = config(tmp_path, {})
    plain = run.model_copy(update={"behaviour": None})
    assert "behaviour" not in json.loads(config_json(plain))
    assert digest(plain) != digest(run)
    assert Run.model_validate_json(config_json(run)) == run
    assert set(json.loads(config_json(run))["behaviour"]) == {"makers_leave", "deleveraging", "inflow"}
    only = Behaviour.model_validate({"inflow": INFLOW})
    assert set(only.model_dump()) == {"inflow"}


def test_outputs_say_whose_positions_they_speak_of() -> None:
    assert Behaviour().population == NO_INFLOW
    assert "an inflow of 3 of their notional a day" in Behaviour.model_validate({"inflow": INFLOW}).population


WRONG = {
    "a negative rate": ({"inflow": INFLOW | {"per_day": -1}}, ["inflow.per_day is -1", "greater than 0"]),
    "too many cohorts": ({"inflow": INFLOW | {"cohorts": 13}}, ["inflow.cohorts is 13", "12"]),
    "leverages the wrong way round": ({"inflow": INFLOW | {"most_leverage": 3}}, ["least_leverage is 8", "Change one"]),
    "all makers gone": ({"makers_leave": LEAVE | SPIKE | {"share": 1}}, ["makers_leave.share is 1", "less than 1"]),
    "all closed": ({"deleveraging": CLOSE | SPIKE | {"per_hour": 1}}, ["deleveraging.per_hour is 1", "less than 1"]),
    "no source": ({"deleveraging": CLOSE | {"move": 1, "minutes": 5}}, ["source is missing"]),
    "longs beyond all": ({"inflow": INFLOW | {"long_share": 1.5}}, ["inflow.long_share is 1.5"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_behaviour_is_refused(name: str) -> None:
    rules, words = WRONG[name]
    with pytest.raises(InputError) as error:
        validate(Behaviour, rules, "run.toml")
    assert all(word in str(error.value) for word in words), error.value


def test_cohorts_follow_each_other_by_whole_steps(tmp_path: Path) -> None:
    run, _ = config(tmp_path, {})
    data = json.loads(config_json(run))
    data["behaviour"]["inflow"] |= {"held_hours": 0.7, "cohorts": 4}
    with pytest.raises(InputError, match=r"held_hours is 0.7 h, which 4 cohorts share by 630 s.*whole steps of 60 s"):
        validate(Run, data, "run.toml")


def test_an_inflow_wants_accounts_to_be_a_share_of(tmp_path: Path) -> None:
    """Accounts on cross margin with coins are no measure, and no maintenance of 1 % leaves room at 100 times."""
    rows = "venue,account,asset,quantity,entry_price,margin,mode\n"
    (tmp_path / "positions.csv").write_text(rows + "one,1,A,10,100,,cross\none,1,B,-10,100,,cross\n")
    (tmp_path / "collateral.csv").write_text("venue,account,token,amount\none,1,USD,500\n")
    files = {name: str(tmp_path / f"{name}.csv") for name in ("positions", "collateral")}
    places = [venue("one", {a: market() for a in ASSETS})]
    for rule in ("inflow", "deleveraging"):
        rules = {"inflow": INFLOW} if rule == "inflow" else {rule: CLOSE | SPIKE}
        with pytest.raises(InputError, match=f"behaviour.{rule} is of accounts with one linear position"):
            build(run_of(places, ASSETS, None, portfolio=files, behaviour=rules))
    run, _ = config(tmp_path, {"inflow": INFLOW | {"least_leverage": 100, "most_leverage": 125}})
    with pytest.raises(InputError, match=r"least_leverage is 100, expected less in A at 'one'"):
        build(run)
