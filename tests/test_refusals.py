"""Wrong input: one clear line that names place, value and what to do; exit code 2; nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Command, write_small

REPLAY = """
[shock]
kind = "replay"
start = "2021-05-19T00:00:00Z"
pin_index = true
"""
GBM = """
[shock]
kind = "gbm"
correlation = 0.5
daily_volatility = { BTC = 0.05, ETH = 0.06 }
"""
FIRST = "here,1,BTC,10,100,12,isolated,50"


def bars(minutes: range, price: float) -> str:
    """Minute bars of a constant price."""
    rows = [f"2021-05-19T{m // 60:02}:{m % 60:02}:00Z,{price},{price},{price},{price}" for m in minutes]
    return "\n".join(["time,open,high,low,close", *rows, ""])


def edit(path: Path, old: str, new: str) -> None:
    """Put `new` in the place of `old`, which must be there."""
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{old!r} is not in {path.name}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(liqstress: Command, config: Path, *words: str | Path) -> str:
    """The one line with which a run is refused; nothing is written."""
    before = listing(config.parent)
    outcome = liqstress("run", config, "--out", config.parent / "out.zarr", *words)
    assert outcome.code == 2
    assert outcome.out == ""
    assert listing(config.parent) == before
    lines = [line for line in outcome.err.splitlines() if line.startswith("liqstress: ")]
    assert len(lines) == 1, outcome.err
    assert "Traceback" not in outcome.err
    return lines[0]


CONFIGS = {
    "unknown key": ("seed = 3", "sead = 3", ["run.toml", "sead is not a known key", "Did you mean 'seed'?"]),
    "wrong type": ("seed = 3", "seed = 3.5", ["seed is 3.5", "expected a valid integer"]),
    "NaN": ("[assets.BTC]\ndaily_volatility = 0.05", "[assets.BTC]\ndaily_volatility = nan", ["assets.BTC", "NaN"]),
    "out of range": ("paths = 40", "paths = 0", ["paths is 0", "greater than or equal to 1"]),
    "missing key": ("block_usd = 1000", "[assets.LTC]", ["assets.LTC.daily_volatility is missing", "Add it"]),
    "unknown kind": ('kind = "gbm"', 'kind = "gmb"', ["shock.kind is 'gmb'", "'merton'"]),
    "unknown key of a kind": ('kind = "gbm"', 'kind = "gbm"\nsorce = "x"', ["shock.sorce", "Did you mean 'source'?"]),
    "asset without a price": ("ETH = 10\n", "", ["prices.start.ETH is missing", "or replay price files"]),
    "negative starting price": ("ETH = 10\n", "ETH = -10\n", ["prices.start.ETH is -10", "greater than 0"]),
    "asset without a shock": (", ETH = 0.06 }", " }", ["shock says nothing about ETH"]),
    "venue file that does not exist": ('"here.toml"', '"there.toml"', ["there.toml", "there is no such file"]),
    "venue under another name": ("here = ", "there = ", ["venues.there has the name 'here'", "Rename one"]),
    "no positions": ('positions = "positions.csv"', "", ["portfolio", "either positions or population"]),
    "positions file that does not exist": ("positions.csv", "gone.csv", ["gone.csv", "cannot be read"]),
    "not TOML": ("seed = 3", "seed = ", ["run.toml", "is not valid TOML", "line 3"]),
    "step off the hour": ("step_seconds = 120", "step_seconds = 70", ["step_seconds is 70 s", "divisor of an hour"]),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_wrong_config_is_refused(name: str, small: Path, liqstress: Command) -> None:
    old, new, words = CONFIGS[name]
    edit(small, old, new)
    line = refused(liqstress, small)
    assert all(word in line for word in words), line


VENUES = {
    "tiers out of order": (
        "floor_usd = 5000",
        "floor_usd = 0",
        ["markets.BTC", "tiers[1].floor_usd is 0 USD"],
    ),
    "no impact parameters": ("adv_usd = 1e6\n", "", ["venues.here.markets.BTC.adv_usd is missing"]),
    "market without a pool": ('name = "main",', 'name = "main", markets = ["BTC"],', ["market ETH has 0 pools"]),
    "unknown key of a market": ("adv_usd", "adv", ["venues.here.markets.BTC", "Did you mean 'adv_usd'?"]),
    "bad rule": ('mark = "median"', 'mark = "mean"', ["venues.here.mark is 'mean'", "'index_average'"]),
}


@pytest.mark.parametrize("name", VENUES)
def test_a_wrong_venue_is_refused(name: str, small: Path, liqstress: Command) -> None:
    old, new, words = VENUES[name]
    edit(small.parent / "here.toml", old, new)
    outcome = liqstress("check", small)
    assert outcome.code == 2
    assert all(word in outcome.err for word in words), outcome.err


ROWS = {
    "venue that does not exist": ("nowhere,1,BTC,10,100,12,isolated,50", ["row 1", "venue", "nowhere"]),
    "asset that does not exist": ("here,1,LTC,10,100,12,isolated,50", ["row 1", "asset", "LTC"]),
    "past its trigger": ("here,1,BTC,10,100,-5,isolated,50", ["row 1", "margin is -5 USD", "100 USD"]),
    "exactly at its trigger": ("here,1,BTC,1,100,0.5,isolated,50", ["row 1", "margin is 0.5 USD", "100 USD"]),
    "cross without a collateral file": (
        "here,1,BTC,10,100,,cross,50",
        ["row 1", "mode is 'cross'", "account '1' at 'here'", "Name the file in portfolio.collateral"],
    ),
    "margin of an account on cross margin": (
        "here,1,BTC,10,100,12,cross,50",
        ["row 1", "margin is 12.0, expected an empty cell", "portfolio.collateral"],
    ),
    "duplicate": ("here,2,BTC,10,100,12,isolated,50", ["account", "2"]),
    "zero quantity": ("here,1,BTC,0,100,12,isolated,50", ["row 1", "quantity"]),
    "negative price": ("here,1,BTC,10,-100,12,isolated,50", ["row 1", "entry_price", "-100"]),
    "NaN": ("here,1,BTC,10,100,nan,isolated,50", ["row 1", "margin"]),
    "wrong type": ("here,1,BTC,ten,100,12,isolated,50", ["row 1", "quantity", "ten"]),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_wrong_position_is_refused(name: str, small: Path, liqstress: Command) -> None:
    row, words = ROWS[name]
    edit(small.parent / "positions.csv", FIRST, row)
    line = refused(liqstress, small)
    assert all(word in line for word in ["positions.csv", *words]), line


def test_an_empty_portfolio_is_refused(small: Path, liqstress: Command) -> None:
    positions = small.parent / "positions.csv"
    positions.write_text(positions.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    assert "positions.csv" in refused(liqstress, small)


CROSS = """venue,account,asset,quantity,entry_price,margin,mode,count
here,a,BTC,10,100,,cross,2
here,1,BTC,10,100,12,isolated,50
here,a,ETH,-50,10,,cross,2
here,b,ETH,100,10,,cross,1
"""
"""Two accounts on cross margin, in equity by 60 and 70 USD, and an isolated position."""
COLLATERAL = """venue,account,token,amount
here,a,USD,60
here,b,USD,70
"""


def write_cross(small: Path) -> Path:
    """The small config with accounts on cross margin; its collateral file."""
    (small.parent / "positions.csv").write_text(CROSS, encoding="utf-8")
    collateral = small.parent / "collateral.csv"
    collateral.write_text(COLLATERAL, encoding="utf-8")
    edit(small, 'positions = "positions.csv"', 'positions = "positions.csv"\ncollateral = "collateral.csv"')
    return collateral


CROSS_ROWS = {
    "count that differs": (
        "here,a,ETH,-50,10,,cross,2",
        "here,a,ETH,-50,10,,cross,3",
        ["row 3", "count is 3.0, expected 2 as in row 1", "account 'a'"],
    ),
    "cross and isolated under one account": (
        "here,1,BTC",
        "here,a,BTC",
        ["row 2: account is 'a'", "BTC", "as in row 1"],
    ),
    "cross and isolated in different markets": (
        "here,1,BTC,10,100,12,isolated,50\nhere,a,ETH,-50,10,,cross,2\nhere,b,ETH,100,10,,cross,1",
        "here,b,BTC,10,100,12,isolated,50\nhere,a,ETH,-50,10,,cross,2\nhere,b,ETH,100,10,,cross,1",
        ["row 2: mode is 'isolated', expected 'cross' as in row 4", "account 'b' at 'here'", "rename the account"],
    ),
    "no cash and no collateral": (
        "here,b,ETH",
        "here,c,ETH",
        ["collateral.csv: row 2: account is 'b', expected an account with positions on cross margin"],
    ),
    "one more account than collateral": (
        "here,b,ETH,100,10,,cross,1",
        "here,b,ETH,100,10,,cross,1\nhere,c,ETH,100,10,,cross,1",
        ["row 5: account is 'c'", "without cash and without collateral", "collateral.csv. Add one"],
    ),
}


@pytest.mark.parametrize("name", CROSS_ROWS)
def test_a_wrong_account_on_cross_margin_is_refused(name: str, small: Path, liqstress: Command) -> None:
    write_cross(small)
    old, new, words = CROSS_ROWS[name]
    edit(small.parent / "positions.csv", old, new)
    line = refused(liqstress, small)
    assert all(word in line for word in words), line


COLLATERALS = {
    "unknown venue": ("here,b", "her,b", ["row 2: venue is 'her', expected one of here", "Did you mean 'here'?"]),
    "no account": ("here,b", "here,", ["row 2: account is empty"]),
    "account that has none": ("here,b", "here,z", ["row 2: account is 'z'", "positions.csv. Correct it"]),
    "account of an isolated position": ("here,b", "here,1", ["row 2: account is '1'", "on cross margin"]),
    "token that is not an asset": ("b,USD", "b,DAI", ["row 2: token is 'DAI', expected one of USD, BTC, ETH"]),
    "misspelt token": ("b,USD", "b,USDT", ["row 2: token is 'USDT'", "Did you mean 'USD'?"]),
    "no token": ("b,USD", "b,", ["row 2: token is empty"]),
    "NaN": ("70", "nan", ["row 2: amount is nan, expected a number of USD or of coins"]),
    "no amount": ("70", "", ["row 2: amount is empty"]),
    "endless": ("70", "inf", ["row 2: amount is inf"]),
    "text": ("70", "much", ["row 2: amount is 'much', expected a number"]),
    "owed coins": ("USD,70", "ETH,-1", ["row 2: amount is -1.0, expected coins of at least 0"]),
    "coins": ("USD,70", "ETH,10", ["row 2: token is 'ETH', expected USD, what 'here' takes", "a haircut"]),
    "repeated": (
        "here,b,USD,70",
        "here,b,USD,70\nhere,a,USD,5",
        ["row 3: token is 'USD' with venue 'here' and account 'a' as in row 1", "Add the amounts up"],
    ),
    "at its margin": ("60", "7.5", ["row 1", "equity", "is 7.5 USD", "the 7.5 USD that its positions require"]),
    "past its margin": ("60", "-5", ["positions.csv: row 1", "at 'here' is -5 USD", "Add to its collateral"]),
    "single position past its margin": ("70", "-5", ["row 4, cash of this account on cross margin is -5 USD"]),
    "missing column": ("token,", "", ["column 'token' is missing, expected venue, account, token, amount"]),
    "ragged": ("here,b,USD,70", "here,b,USD", ["row 2 has 3 columns, expected 4 as in the header"]),
    "thousands": ("70", "7,000", ["row 2 has 5 columns"]),
    "no rows": (COLLATERAL, "venue,account,token,amount\n", ["positions.csv: row 1: account is 'a'", "Add one"]),
    "empty": (COLLATERAL, "", ["collateral.csv: is empty", "file of collateral"]),
}


@pytest.mark.parametrize("name", COLLATERALS)
def test_wrong_collateral_is_refused(name: str, small: Path, liqstress: Command) -> None:
    collateral = write_cross(small)
    old, new, words = COLLATERALS[name]
    edit(collateral, old, new)
    line = refused(liqstress, small)
    assert all(word in line for word in words), line


def test_accounts_on_cross_margin_are_not_refused(small: Path, liqstress: Command) -> None:
    """And what the tests above refuse is refused for the reason they name; cash may be owed against profit."""
    edit(write_cross(small), "60", "-60")
    edit(small.parent / "positions.csv", "here,a,BTC,10,100", "here,a,BTC,10,90")
    outcome = liqstress("check", small)
    assert outcome.code == 0, outcome.err
    assert "# engines: 51 accounts on ladders, 2 on cross margin" in outcome.out


def test_a_collateral_file_that_is_not_there_is_refused(small: Path, liqstress: Command) -> None:
    write_cross(small).unlink()
    assert "collateral.csv" in refused(liqstress, small)


def test_collateral_without_accounts_on_cross_margin_is_refused(small: Path, liqstress: Command) -> None:
    collateral = write_cross(small)
    write_small(small.parent / "plain")
    (small.parent / "positions.csv").write_bytes((small.parent / "plain" / "positions.csv").read_bytes())
    line = refused(liqstress, small)
    assert f"{collateral}: is the collateral of accounts on cross margin" in line
    assert "Leave out portfolio.collateral" in line


def test_collateral_beside_a_population_is_refused(small: Path, liqstress: Command) -> None:
    write_cross(small)
    population = Path(__file__).resolve().parents[1] / "configs" / "populations" / "default.toml"
    edit(small, 'positions = "positions.csv"', f'population = "{population}"')
    line = refused(liqstress, small)
    assert "portfolio: collateral is" in line
    assert "beside a population" in line


def replay(folder: Path, btc: str) -> Path:
    """The small config as a replay of an hour, with the price file of BTC given."""
    config = write_small(folder)
    edit(config, GBM, REPLAY)
    prices = folder / "prices"
    prices.mkdir()
    (prices / "BTC.csv").write_text(btc, encoding="utf-8")
    (prices / "ETH.csv").write_text(bars(range(90), 10), encoding="utf-8")
    return config


GOOD = bars(range(90), 100)
PRICES = {
    "out of order": (GOOD.replace("00:10:00Z", "00:08:00Z"), ["row 11", "time", "Sort the file"]),
    "gap inside the window": (
        "\n".join(line for line in GOOD.splitlines() if "T00:30" not in line),
        ["has no bars from 2021-05-19T00:30:00Z", "fill the gap"],
    ),
    "too short": (bars(range(50), 100), ["covers 2021-05-19T00:00:00Z to 2021-05-19T00:50:00Z"]),
    "negative": (GOOD.replace("T00:05:00Z,100,", "T00:05:00Z,-100,"), ["row 6", "open is -100", "above 0"]),
    "without a column": (GOOD.replace("close", "last"), ["column close is missing"]),
}


@pytest.mark.parametrize("name", PRICES)
def test_a_wrong_price_file_is_refused(name: str, tmp_path: Path, liqstress: Command) -> None:
    text, words = PRICES[name]
    config = replay(tmp_path, text)
    line = refused(liqstress, config, "--prices", tmp_path / "prices")
    assert all(word in line for word in ["BTC.csv", *words]), line


def test_a_gap_outside_the_window_is_not_refused(tmp_path: Path, liqstress: Command) -> None:
    """And what the tests above refuse is refused for the reason they name."""
    text = "\n".join(line for line in GOOD.splitlines() if "T01:10" not in line)
    assert liqstress("check", replay(tmp_path, text), "--prices", tmp_path / "prices").code == 0


def test_a_replay_without_prices_says_how_to_give_them(tmp_path: Path, liqstress: Command) -> None:
    assert "--prices DIR" in refused(liqstress, replay(tmp_path, GOOD))


def test_a_gpu_that_is_not_there_is_refused_in_our_words(small: Path, liqstress: Command) -> None:
    line = refused(liqstress, small, "--device", "gpu")
    assert "JAX sees no GPU here" in line
    assert "--device cpu" in line


@pytest.mark.parametrize("text", ["impact.rho", "=3", "impact.rho=2", "name.x=1"])
def test_a_wrong_override_is_refused(text: str, small: Path, liqstress: Command) -> None:
    refused(liqstress, small, "--set", text)


def test_an_output_that_is_something_else_is_refused(small: Path, liqstress: Command) -> None:
    out = small.parent / "out.zarr"
    out.mkdir()
    (out / "note.txt").write_text("mine", encoding="utf-8")
    assert "is not a run of liqstress" in refused(liqstress, small)
