"""Overlays: when a token is off its peg, and what is refused."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import ROOT, Command
from reference.small import market, venue

from stress.conditions import conditions
from stress.config import Run, load_config
from stress.digests import digest
from stress.overlays import Depeg
from stress.spec import InputError, validate

DEPEG = {"kind": "depeg", "token": "T", "venue": "one", "share": 0.35, "start_minutes": 60, "minutes": 30}
INVERSE = market(contract="inverse")


def run(*overlays: dict[str, Any], **changes: Any) -> Run:
    """Two venues, one of them with a token without a perpetual as collateral; the other has an inverse contract."""
    places = [
        venue("one", {"A": market()}, haircuts={"T": 0.05, "A": 0.1, "elsewhere": 0.1}),
        venue("two", {"A": market(), "B": INVERSE}, haircuts={"B": 0.2}),
    ]
    assets: dict[str, dict[str, float]] = {name: {"daily_volatility": 0.02} for name in ("A", "B", "T")}
    assets["T"]["spot_adv_usd"] = 1e9
    data = {
        "name": "small",
        "horizon_hours": 2,
        "venues": {str(v["name"]): v for v in places},
        "assets": assets,
        "prices": {"start": dict.fromkeys(assets, 100.0)},
        "portfolio": {"positions": "positions.csv"},
        "shock": {"kind": "prescribed", "minutes": [1], "moves": {a: [0.0] for a in assets}},
        "overlays": list(overlays),
    }
    return validate(Run, copy.deepcopy(data | changes), "run.toml")


def refusal(*overlays: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        run(*overlays, **changes)
    return str(caught.value)


@pytest.mark.parametrize(
    ("start", "minutes", "steps"),
    [(2, 3, [2, 3, 4]), (2.5, 2.4, [2, 3]), (0, 1, [0]), (0, 0.5, []), (4, 99, [4, 5]), (0.5, 0.5, [0])],
)
def test_a_step_is_off_the_peg_by_its_end(start: float, minutes: float, steps: list[int]) -> None:
    depeg = Depeg.model_validate(DEPEG | {"start_minutes": start, "minutes": minutes})
    assert np.flatnonzero(depeg.during(60, 6)).tolist() == steps


def test_a_finer_step_sees_the_same_minutes() -> None:
    depeg = Depeg.model_validate(DEPEG)
    fine, coarse = depeg.during(10, 720), depeg.during(60, 120)
    np.testing.assert_array_equal(fine.reshape(120, 6), np.repeat(coarse[:, None], 6, axis=1))
    assert np.count_nonzero(coarse) == 30


def test_depegs_one_after_another_and_of_other_tokens_or_venues_are_read() -> None:
    later, other = DEPEG | {"start_minutes": 90}, DEPEG | {"token": "A"}
    assert [overlay.token for overlay in run(later, DEPEG, other).overlays if isinstance(overlay, Depeg)] == [
        "T",
        "T",
        "A",
    ]
    assert run().overlays == ()


WRONG = {
    "venue": ({"venue": "three"}, "overlays[0].venue is 'three', expected a venue of the run (one, two). Correct it."),
    "no asset": ({"token": "elsewhere"}, "overlays[0].token is 'elsewhere', expected an asset of the run (A, B, T)."),
    "no collateral": ({"token": "B"}, "overlays[0].token is 'B', expected a token that 'one' takes as collateral (T"),
    "coin of an inverse contract": (
        {"venue": "two", "token": "B"},
        "overlays[0].token is 'B', the coin of an inverse contract at 'two', which counts at that contract's mark",
    ),
    "after the end": (
        {"start_minutes": 120},
        "overlays[0].start_minutes is 120 min, expected less than the run's 120 min. Start it earlier, or lengthen",
    ),
    "whole": ({"share": 1}, "overlays[0].share is 1, expected less than 1. Change it."),
    "nothing": ({"share": 0}, "overlays[0].share is 0, expected greater than 0. Change it."),
    "no time": ({"minutes": 0}, "overlays[0].minutes is 0, expected greater than 0. Change it."),
    "before the start": ({"start_minutes": -1}, "overlays[0].start_minutes is -1, expected greater than or equal to"),
    "kind": ({"kind": "crash"}, "overlays[0].kind is 'crash', expected one of 'depeg', 'depth_collapse',"),
    "misspelt": ({"minute": 3}, "overlays[0].minute is not a known key. Did you mean 'minutes'?"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_overlay_is_refused(name: str) -> None:
    change, words = WRONG[name]
    line = refusal(DEPEG | change)
    assert line.startswith(f"run.toml: {words}")
    assert "\n" not in line


def episode(kind: str, start: float, minutes: float, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "start_minutes": start, "minutes": minutes} | more


def test_overlays_become_tables_of_steps() -> None:
    """Two venues, assets A, B and T, 120 steps of a minute: step k ends at minute k + 1."""
    it = conditions(
        run(
            DEPEG,
            episode("depth_collapse", 10, 5, times=3),
            episode("depth_collapse", 12, 1, times=2, assets=["B"]),
            episode("slowdown", 20, 2, venue="one", share=0.25),
            episode("outage", 30, 2, venue="two"),
            episode("stale_index", 31, 2, venue="two"),
            episode("funding_spike", 40, 1, premium=0.01, venues=["two"], assets=["B"]),
            episode("funding_spike", 40, 2, premium=-0.002),
        ),
        coins=True,
    )
    assert it.deviation is not None
    assert it.thinness is not None
    assert it.working is not None
    assert it.stale is not None
    assert it.premium is not None
    at_steps = np.flatnonzero(it.deviation.any(axis=(1, 2)))
    assert (at_steps[0], at_steps[-1]) == (60, 89)
    np.testing.assert_allclose(it.deviation[60], [[0, 0, np.log(0.65)], [0, 0, 0]])
    np.testing.assert_array_equal(
        it.thinness[9:16], [[1, 1, 1]] + 2 * [[3, 3, 3]] + [[3, 6, 3]] + 2 * [[3, 3, 3]] + [[1, 1, 1]]
    )
    np.testing.assert_array_equal(it.working[19:23], [[1, 1], [0.25, 1], [0.25, 1], [1, 1]])
    np.testing.assert_array_equal(it.working[29:33], [[1, 1], [1, 0], [1, 0], [1, 1]])
    np.testing.assert_array_equal(it.stale[29:34], [[0, 0], [0, 1], [0, 1], [0, 1], [0, 0]])
    np.testing.assert_allclose(it.premium[40], [3 * [-0.002], [-0.002, 0.008, -0.002]])
    np.testing.assert_allclose(it.premium[39:43].any(axis=(1, 2)), [False, True, True, False])


def test_what_no_overlay_changes_has_no_table() -> None:
    assert jax.tree.leaves(conditions(run(), coins=True)) == []
    assert jax.tree.leaves(conditions(run(DEPEG), coins=False)) == []


ELSEWHERE = {
    "depth": (episode("depth_collapse", 0, 1, times=2, assets=["X"]), "overlays[0].assets names 'X', expected"),
    "no collapse": (episode("depth_collapse", 0, 1, times=1), "overlays[0].times is 1, expected greater than 1."),
    "slowdown": (episode("slowdown", 0, 1, venue="x", share=0), "overlays[0].venue is 'x', expected a venue"),
    "no slowdown": (episode("slowdown", 0, 1, venue="one", share=1), "overlays[0].share is 1, expected less than 1."),
    "outage": (episode("outage", 0, 1, venue="x"), "overlays[0].venue is 'x', expected a venue of the run (one, two)."),
    "stale": (episode("stale_index", 120, 1, venue="one"), "overlays[0].start_minutes is 120 min, expected less than"),
    "spike": (episode("funding_spike", 0, 1, premium=0.1, venues=["x"]), "overlays[0].venues is 'x', expected a venue"),
    "between steps": (
        episode("outage", 10.2, 0.5, venue="one"),
        "overlays[0].minutes is 0.5 min from 10.2 min on, in which no step of 60 s ends, expected at least one.",
    ),
    "spike of": (episode("funding_spike", 0, 1, premium=0.1, assets=["x"]), "overlays[0].assets names 'x', expected"),
}  # fmt: skip


@pytest.mark.parametrize("name", ELSEWHERE)
def test_an_overlay_of_what_the_run_has_not_is_refused(name: str) -> None:
    overlay, words = ELSEWHERE[name]
    line = refusal(overlay)
    assert line.startswith(f"run.toml: {words}")
    assert "\n" not in line


def test_an_engine_is_said_to_be_slow_once_at_a_time() -> None:
    line = refusal(episode("outage", 10, 5, venue="one"), episode("slowdown", 14, 5, venue="one", share=0.5))
    assert line == (
        "run.toml: overlays[1] overlaps overlays[0], also of the engine of 'one', expected one at a time. Move or "
        "shorten one of them."
    )


@pytest.mark.parametrize("start", [31, 60, 89])
def test_two_at_a_time_are_refused(start: float) -> None:
    line = refusal(DEPEG, DEPEG | {"token": "A"}, DEPEG | {"start_minutes": start})
    assert line == (
        "run.toml: overlays[2] overlaps overlays[0], also of 'T' at 'one', expected one at a time. Move or shorten one "
        "of them."
    )


def test_a_token_without_a_perpetual_needs_a_spot_volume() -> None:
    assets = {name: {"daily_volatility": 0.02} for name in ("A", "B", "T")}
    assert refusal(assets=assets) == (
        "run.toml: assets.T.spot_adv_usd is missing, the daily volume of its spot market in USD was expected: no venue "
        "of the run lists it. Add it, or a venue that does."
    )
    both = {name: {"daily_volatility": 0.02, "spot_adv_usd": 1e9} for name in ("A", "T")} | {"B": assets["B"]}
    assert refusal(assets=both) == (
        "run.toml: assets.A.spot_adv_usd is 1e+09 USD, expected none: 'one' lists a perpetual on it, whose adv_usd "
        "counts. Leave it out."
    )


def test_terms_are_what_a_venue_takes_of_the_assets_of_the_run() -> None:
    one, two = run().terms("one"), run().terms("two")
    assert (one.markets, one.inverse, one.tokens, one.nets) == (["A"], [], ["A", "T"], True)
    assert (two.markets, two.inverse, two.tokens) == (["A", "B"], ["B"], ["B"])
    strict = venue("one", {name: market() for name in ("A", "B", "T")}, hedged_legs="refused")
    assets = {name: {"daily_volatility": 0.02} for name in ("A", "B", "T")}
    assert run(venues={"one": strict}, assets=assets).terms("one").nets is False


def test_a_population_beside_an_inverse_contract_is_refused() -> None:
    population = tomllib.loads((ROOT / "configs" / "populations" / "default.toml").read_text(encoding="utf-8"))
    line = refusal(portfolio={"population": population})
    assert line == (
        "run.toml: portfolio.population has linear positions only, expected no inverse contract, as venues.two "
        "lists on B. Give portfolio.positions, or leave out the venue."
    )


def test_overlays_stand_in_the_config_its_digest_and_what_check_prints(small: Path, liqstress: Command) -> None:
    plain = digest(load_config(small))
    here = small.parent / "here.toml"
    here.write_text("haircuts = { ETH = 0.1 }\n" + here.read_text(encoding="utf-8"), encoding="utf-8")
    with_haircut = digest(load_config(small))
    off = """
[[overlays]]
kind = "depeg"
token = "ETH"
venue = "here"
share = 0.3
start_minutes = 10
minutes = 20
"""
    small.write_text(small.read_text(encoding="utf-8") + off, encoding="utf-8")
    assert len({plain, with_haircut, digest(load_config(small))}) == 3
    outcome = liqstress("check", small)
    assert outcome.code == 0, outcome.err
    assert tomllib.loads(outcome.out)["overlays"] == [
        {
            "kind": "depeg",
            "token": "ETH",
            "venue": "here",
            "share": 0.3,
            "start_minutes": 10,
            "minutes": 20,
            "source": "",
        }
    ]
