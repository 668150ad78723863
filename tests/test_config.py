"""Configs: what is included, overridden and said; the files that come with the project."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from conftest import DATA, ROOT

from stress.config import Run, load_config, parse_override
from stress.console import as_toml
from stress.diffusions import total_volatility
from stress.digests import digest
from stress.prices import instant, iso
from stress.scenarios import Merton, Prescribed, Replay
from stress.spec import InputError, Spec, validate
from stress.suite import is_suite

CONFIGS = ROOT / "configs"
RUNS = sorted(path for path in CONFIGS.glob("*.toml") if not is_suite(path))
MINUTES = DATA / "prices_1m_spot_2021-05"


def load(name: str, **given: Any) -> Run:
    return load_config(CONFIGS / f"{name}.toml", prices="prices" if name.startswith("replay") else None, **given)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_run_loads_fits_the_schema_and_is_named_after_its_file(path: Path) -> None:
    run = load(path.stem)
    assert run.name == path.stem
    assert len(run.description) > 50
    whole = json.loads((CONFIGS / "schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(tomllib.loads(path.read_text(encoding="utf-8")), whole)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_run_survives_being_written_as_toml(path: Path) -> None:
    run = load(path.stem)
    assert validate(Run, tomllib.loads(as_toml(run.model_dump(mode="json"))), "again") == run


def test_the_schema_refuses_what_the_loader_refuses() -> None:
    whole = json.loads((CONFIGS / "schema.json").read_text(encoding="utf-8"))
    table = tomllib.loads((CONFIGS / "quickstart.toml").read_text(encoding="utf-8"))
    for key, value in (("sead", 1), ("paths", 0), ("impact", {"rho": 2}), ("shock", {"kind": "gmb"})):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**table, key: value}, whole)


def test_quickstart_volatility_is_that_of_its_shock() -> None:
    run = load("quickstart")
    assert isinstance(run.shock, Merton)
    for asset, total in total_volatility(run.shock).items():
        assert run.assets[asset].daily_volatility == pytest.approx(total, rel=2e-3)


def test_the_rescaled_shock_has_the_shape_of_the_fit() -> None:
    """Volatility and jump sizes scaled by one factor; intensities, betas and correlation as fitted."""
    rescaled, fitted = (
        validate(Merton, tomllib.loads((CONFIGS / "scenarios" / f"{name}.toml").read_text(encoding="utf-8")), name)
        for name in ("merton-2025-level", "merton")
    )
    assert rescaled.common.beta == fitted.common.beta
    assert rescaled.correlation == fitted.correlation
    assert rescaled.common.per_day == fitted.common.per_day
    factors = [rescaled.common.sd / fitted.common.sd, rescaled.common.mean / fitted.common.mean]
    factors += [rescaled.daily_volatility[asset] / fitted.daily_volatility[asset] for asset in fitted.daily_volatility]
    assert factors == pytest.approx([0.026 / total_volatility(fitted)["BTC"]] * len(factors), rel=2e-3)


def test_the_crash_falls_by_a_fifth_in_three_minutes_with_funds_of_a_tenth() -> None:
    run, usual = load("crash"), load("quickstart")
    assert isinstance(run.shock, Prescribed)
    before, low, after = np.exp(run.shock.log_path("BTC", np.array([15.0, 18.0, 60.0])))
    assert (before, low, after) == pytest.approx((1.0, 0.8, 0.88))
    for name, venue in run.venues.items():
        assert venue.pools[0].equity_usd == pytest.approx(usual.venues[name].pools[0].equity_usd / 10)
        assert venue.model_copy(update={"pools": usual.venues[name].pools}) == usual.venues[name]


def test_the_replay_covers_the_crash_day() -> None:
    run = load("replay_2021-05-19")
    assert isinstance(run.shock, Replay)
    start = instant(run.shock.start)
    assert iso(start) == "2021-05-19T00:00:00Z"
    assert run.horizon_hours == 24
    assert run.shock.pin_index
    if not MINUTES.is_dir():
        pytest.skip("minute prices of May 2021 beside the repository are absent")
    from stress.prices import load_replay

    logs = load_replay(MINUTES, {}, list(run.assets), run.shock.start, 86400, run.step_seconds)
    low = np.expm1(logs["BTC"] - logs["BTC"][0]).min()
    assert low == pytest.approx(-0.298, abs=5e-4)  # published: -29.8 %


def test_digest_follows_the_bytes_of_price_files(tmp_path: Path) -> None:
    for asset in ("BTC", "ETH", "XRP"):
        (tmp_path / f"{asset}.csv").write_text("one", encoding="utf-8")
    first = digest(load_config(CONFIGS / "replay_2021-05-19.toml", prices=tmp_path))
    (tmp_path / "XRP.csv").write_text("two", encoding="utf-8")
    assert digest(load_config(CONFIGS / "replay_2021-05-19.toml", prices=tmp_path)) != first


def test_included_files_are_relative_to_the_config_and_merge_deep(small: Path) -> None:
    text = small.read_text(encoding="utf-8").replace(
        'here = "here.toml"', '[venues.here]\nfile = "here.toml"\nfunding = { cap = 0.5 }\npools = []'
    ).replace("[venues]\n", "")  # fmt: skip
    small.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"venues\.here\.pools is \[\], expected at least 1 item"):
        load_config(small)
    small.write_text(text.replace("pools = []", ""), encoding="utf-8")
    venue = load_config(small).venues["here"]
    assert (venue.funding.cap, venue.funding.clamp) == (0.5, 0.0005)


def test_a_table_of_another_kind_is_replaced(small: Path) -> None:
    other = '[venues.here]\nfile = "here.toml"\nstaging = { kind = "tiers", down = 2 }\n'
    text = small.read_text(encoding="utf-8").replace('here = "here.toml"', other).replace("[venues]\n", "")
    small.write_text(text, encoding="utf-8")
    again = {"file": str(small.parent / "here.toml"), "staging": {"kind": "restore", "target": 2}}
    assert load_config(small).venues["here"].staging.model_dump()["down"] == 2
    assert load_config(small, overrides={"venues.here": again}).venues["here"].staging.kind == "restore"


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("impact.rho=0.3", "impact.rho", 0.3),
        ("name=abc", "name", "abc"),
        ('name="a=b"', "name", "a=b"),
        ("impact.depth=false", "impact.depth", False),
        ("shock.minutes=[1, 2]", "shock.minutes", [1, 2]),
    ],
)
def test_overrides_are_read_as_toml(text: str, key: str, value: object) -> None:
    assert parse_override(text) == (key, value)


def test_an_override_may_name_a_file() -> None:
    """Relative to the working directory, as the command line's other files are."""
    gbm = str(CONFIGS / "scenarios" / "gbm.toml")
    assert load_config(CONFIGS / "quickstart.toml", overrides={"shock": gbm}).shock.kind == "gbm"
    named = {"file": gbm, "daily_volatility": {"BTC": 0.5}}
    shock = load_config(CONFIGS / "quickstart.toml", overrides={"shock": named}).shock
    assert shock.kind == "gbm"
    assert shock.daily_volatility["BTC"] == 0.5


MERTON = {
    "shock.common.minutes": ([1, 2, 3], r"shock\.common\.minutes is \[1.0, 2.0, 3.0\], expected the shortest"),
    "shock.common.beta.LTC": (1.0, "common.beta names 'LTC'"),
    "shock.own.LTC": ({"per_day": 1, "mean": 0, "sd": 1}, "shock.own names 'LTC'"),
    "shock.correlation": ("high", "shock.correlation is 'high', expected a valid number or a valid list"),
    "shock.common.per_day": (-1, "shock.common.per_day is -1, expected greater than or equal to 0"),
}


@pytest.mark.parametrize("key", MERTON)
def test_a_wrong_shock_is_refused_by_the_name_of_its_key(key: str) -> None:
    value, words = MERTON[key]
    with pytest.raises(InputError, match=words) as caught:
        load("quickstart", overrides={key: value})
    assert len(str(caught.value).splitlines()) == 1


def test_missing_keys_of_one_table_share_a_line() -> None:
    class Inner(Spec):
        one: int
        two: int
        three: int

    class Outer(Spec):
        inner: Inner

    with pytest.raises(InputError) as caught:
        validate(Outer, {"inner": {"two": True}}, "x.toml")
    assert str(caught.value).splitlines() == [
        "x.toml: inner.two is true, expected a valid integer. Change it.",
        "x.toml: inner.one, three are missing, values were expected. Add them.",
    ]
