"""Price files and replays: what is refused, and that a replay is the file."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from stress.prices import Bars, find_file, instant, iso, load_replay, read_bars, replay_log_prices
from stress.spec import InputError

START = 1621382400  # 2021-05-19T00:00:00Z
MAY = Path(__file__).parents[2] / "shared" / "data" / "prices_1m_spot_2021-05"
HEADER = "time,open,high,low,close,volume"
ROWS = (
    "2021-05-19T00:00:00Z,100,110,90,105,1",
    "2021-05-19T01:00:00Z,105,106,80,85,2",
    "2021-05-19T02:00:00Z,85,99,84,85,0",
)


def _csv(folder: Path, *rows: str, header: str = HEADER, name: str = "BTC.csv") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def _walk(bars: int, bar_seconds: int = 60, seed: int = 1) -> Bars:
    """Random bars without gaps whose opens are the closes before."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, bars)))
    open_ = np.concatenate([[100.0], close[:-1]])
    high = np.maximum(open_, close) * np.exp(rng.exponential(0.005, bars))
    low = np.minimum(open_, close) * np.exp(-rng.exponential(0.005, bars))
    time = START + bar_seconds * np.arange(bars, dtype=np.int64)
    return Bars("walk", time, open_, high, low, close, None, bar_seconds)


def _store(bars: Bars, path: Path) -> Path:
    columns = {name: getattr(bars, name) for name in ("time", "open", "high", "low", "close")}
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path


def test_bars_of_a_csv(tmp_path: Path) -> None:
    bars = read_bars(_csv(tmp_path, *ROWS))
    assert bars.time.tolist() == [START, START + 3600, START + 7200]
    assert bars.bar_seconds == 3600
    assert bars.close.tolist() == [105, 85, 85]
    assert bars.volume is not None and bars.volume.tolist() == [1, 2, 0]
    assert bars.open.dtype == np.float64 and bars.time.dtype == np.int64


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("kind", ["stamp", "stamp_utc", "stamp_tokyo", "number", "text", "category"])
def test_every_form_of_time_is_the_same_instant(tmp_path: Path, unit: str, kind: str) -> None:
    seconds = np.array([START, START + 60, START + 180])
    ticks = seconds * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    zone = {"stamp_utc": "UTC", "stamp_tokyo": "Asia/Tokyo"}.get(kind)
    texts = [datetime.fromtimestamp(s, UTC).isoformat() for s in seconds.tolist()]
    column = {
        "number": pa.array(ticks),
        "text": pa.array(texts),
        "category": pa.array(texts).dictionary_encode(),
    }.get(kind, pa.array(ticks, pa.timestamp(unit, zone)) if kind.startswith("stamp") else None)
    price = pa.array([1.0, 2.0, 3.0])
    table = pa.table({"time": column, "open": price, "high": price, "low": price, "close": price})
    path = tmp_path / "BTC.feather"
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    bars = read_bars(path)
    assert bars.time.tolist() == seconds.tolist()
    assert bars.bar_seconds == 60
    assert bars.volume is None


@pytest.mark.parametrize(
    "text", ["2021-05-19 00:00:00", "2021-05-19T00:00:00", "2021-05-19T09:00:00+09:00", "2021-05-19"]
)
def test_times_of_a_csv_without_a_zone_are_utc(tmp_path: Path, text: str) -> None:
    later = text.replace("19", "20", 1) if "19" in text else text
    bars = read_bars(_csv(tmp_path, f"{text},1,1,1,1,0", f"{later},1,1,1,1,0"))
    assert bars.time.tolist() == [START, START + 86400]
    assert instant(text) == START
    assert iso(START) == "2021-05-19T00:00:00Z"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("2021-05-19T03:00:00Z,-1,110,90,105,1",), "row 4: open is -1, expected a price above 0"),
        (("2021-05-19T03:00:00Z,0,110,90,105,1",), "row 4: open is 0, expected a price above 0"),
        (("2021-05-19T03:00:00Z,,110,90,105,1",), "row 4: open is empty or NaN, expected a number"),
        (("2021-05-19T03:00:00Z,inf,110,90,105,1",), "row 4: open is infinite, expected a number"),
        (("2021-05-19T03:00:00Z,abc,110,90,105,1",), "row 4: open is 'abc', expected a number"),
        (("2021-05-19T03:00:00Z,100,99,90,95,1",), "row 4: high is 99, expected at least 100"),
        (("2021-05-19T03:00:00Z,100,110,99,95,1",), "row 4: low is 99, expected at most 95"),
        (("2021-05-19T03:00:00Z,100,110,90,95,-1",), "row 4: volume is -1, expected 0 or more"),
        (("2021-05-19T02:00:00Z,100,110,90,95,1",), "row 4: time is 2021-05-19T02:00:00Z, the same as the row above"),
        (("2021-05-19T01:00:00Z,100,110,90,95,1",), "row 4: time is 2021-05-19T01:00:00Z, before 2021-05-19T02:00:00Z"),
        (
            ("2021-05-19T03:30:00Z,100,110,90,95,1",),
            "row 4: time is 2021-05-19T03:30:00Z, expected a whole number of 3600 s bars",
        ),
        (("yesterday,100,110,90,95,1",), "row 4: time is 'yesterday', expected an ISO 8601 time"),
        ((",100,110,90,95,1",), "row 4: time is empty, expected a time"),
        (("2021-05-19T03:00:00.5Z,100,110,90,95,1",), "expected a whole second"),
        (("1970-01-01T03:00:00Z,100,110,90,95,1",), "row 4: time is 10800 s, expected a time from 2009 to 2099"),
        (("2021-05-19T03:00:00Z,100,110",), "cannot be read"),
    ],
)
def test_refused_rows_are_named(tmp_path: Path, rows: tuple[str, ...], message: str) -> None:
    path = _csv(tmp_path, *ROWS, *rows)
    with pytest.raises(InputError) as error:
        read_bars(path)
    line = str(error.value)
    assert line.startswith(str(path)) and message in line and "\n" not in line


def test_mixed_units_of_time_are_refused(tmp_path: Path) -> None:
    rows = [f"{START + 60 * i},1,1,1,1,0" for i in range(3)] + [f"{(START + 180) * 1000},1,1,1,1,0"]
    with pytest.raises(InputError, match=r"row 4: time is \d+ s, expected a time from 2009 to 2099\. Use one unit"):
        read_bars(_csv(tmp_path, *rows))


def test_refused_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a file"):
        read_bars(tmp_path)
    with pytest.raises(InputError, match="is not a file"):
        read_bars(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"column close is missing \(there are: time, open, high, low, last\)"):
        read_bars(_csv(tmp_path, "2021-05-19,1,1,1,1", header="time,open,high,low,last"))
    with pytest.raises(InputError, match="has 1 rows, expected two bars or more"):
        read_bars(_csv(tmp_path, ROWS[0]))
    with pytest.raises(InputError, match=r"ends in '\.json'"):
        read_bars(_csv(tmp_path, name="BTC.json"))
    with pytest.raises(InputError, match="cannot be read"):
        read_bars(_csv(tmp_path, name="BTC.parquet"))
    with pytest.raises(InputError, match="cannot be read"):
        read_bars(_csv(tmp_path, name="BTC.feather"))
    flag = pa.array([True, False])
    columns = dict.fromkeys(("open", "high", "low", "close"), flag) | {"time": pa.array([START, START + 60])}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "flags.parquet")
    with pytest.raises(InputError, match="open is of type bool, expected numbers"):
        read_bars(tmp_path / "flags.parquet")
    pyarrow.parquet.write_table(pa.table(columns | {"time": pa.array([1.0, 2.0])}), tmp_path / "float.parquet")
    with pytest.raises(InputError, match="time is of type double"):
        read_bars(tmp_path / "float.parquet")


def test_find_file_takes_the_one_that_fits_and_refuses_two(tmp_path: Path) -> None:
    (tmp_path / "BTCUSDT_8h-funding.json").touch()
    with pytest.raises(InputError, match="has no price file of BTC"):
        find_file(tmp_path, "BTC", {})
    (tmp_path / "BTCUSDT_1m.parquet").touch()
    (tmp_path / "ETH.csv").touch()
    assert find_file(tmp_path, "BTC", {}).name == "BTCUSDT_1m.parquet"
    assert find_file(tmp_path, "ETH", {}).name == "ETH.csv"
    (tmp_path / "BTCDOMUSDT_1m.parquet").touch()
    with pytest.raises(InputError, match=r"2 files fit BTC .*prices.files"):
        find_file(tmp_path, "BTC", {})
    assert find_file(tmp_path, "BTC", {"BTC": "BTCUSDT_1m.parquet"}).name == "BTCUSDT_1m.parquet"
    (tmp_path / "BTCUSDT_1m.parquet").unlink()
    with pytest.raises(InputError, match="may be another asset"):
        find_file(tmp_path, "BTC", {})
    with pytest.raises(InputError, match="expected a folder"):
        find_file(tmp_path / "none", "BTC", {})


def test_replay_of_closes_is_the_file() -> None:
    bars = _walk(120)
    path = replay_log_prices(bars, START + 600, 3600, 60)
    assert path.shape == (61,) and path.dtype == np.float64
    assert path[0] == np.log(bars.open[10])
    assert (path[1:] == np.log(bars.close[10:70])).all()
    coarse = replay_log_prices(bars, START + 600, 3600, 300)
    assert (coarse == path[::5]).all()


def test_replay_inside_a_bar_walks_its_corners() -> None:
    up = (100.0, 110.0, 90.0, 105.0)
    down = (104.0, 106.0, 80.0, 85.0)
    flat = (85.0, 99.0, 84.0, 85.0)
    o, h, low, c = np.array([up, down, flat]).T
    bars = Bars("three", START + 3600 * np.arange(3, dtype=np.int64), o, h, low, c, None, 3600)
    path = np.exp(replay_log_prices(bars, START, 3 * 3600, 600))
    assert path[[0, 2, 4, 6]] == pytest.approx([100, 90, 110, 105], rel=1e-14)
    assert path[[8, 10, 12]] == pytest.approx([106, 80, 85], rel=1e-14)
    assert path[[14, 16, 18]] == pytest.approx([99, 84, 85], rel=1e-14)
    assert path[1] == pytest.approx(np.sqrt(100 * 90), rel=1e-14)
    assert path[7] == pytest.approx(np.sqrt(104 * 106), rel=1e-14)  # from its own open, not from the close before


def test_which_extreme_of_a_bar_comes_first_is_named() -> None:
    o, h, low, c = np.array([(100.0, 110.0, 90.0, 105.0), (105.0, 106.0, 80.0, 85.0)]).T
    bars = Bars("two", START + 3600 * np.arange(2, dtype=np.int64), o, h, low, c, None, 3600)
    expected = {
        "by_close": [90, 110, 105, 106, 80, 85],
        "low_first": [90, 110, 105, 80, 106, 85],
        "high_first": [110, 90, 105, 106, 80, 85],
        "straight": [*(100 * 1.05 ** (np.arange(1, 4) / 3)), *(105 * (85 / 105) ** (np.arange(1, 4) / 3))],
    }
    for rule, prices in expected.items():
        path = np.exp(replay_log_prices(bars, START, 7200, 1200, rule))
        assert path == pytest.approx([100, *prices], rel=1e-13), rule
        assert (replay_log_prices(bars, START, 7200, 3600, rule) == np.log([100, 105, 85])).all()


def test_fine_replay_agrees_with_bars_and_keeps_their_extremes() -> None:
    bars = _walk(30, bar_seconds=300)
    fine = replay_log_prices(bars, START, 30 * 300, 10)
    assert (fine[::30] == replay_log_prices(bars, START, 30 * 300, 300)).all()
    inside = fine[1:].reshape(30, 30)
    assert np.exp(inside.max(axis=1)) == pytest.approx(bars.high, rel=1e-14)
    assert np.exp(inside.min(axis=1)) == pytest.approx(bars.low, rel=1e-14)


def test_gaps_are_refused_only_inside_the_window() -> None:
    whole = _walk(100)
    keep = np.r_[0:50, 53:100]
    bars = replace(whole, **{name: getattr(whole, name)[keep] for name in ("time", "open", "high", "low", "close")})
    assert len(replay_log_prices(bars, START, 50 * 60, 60)) == 51
    assert len(replay_log_prices(bars, START + 53 * 60, 47 * 60, 60)) == 48
    for first, count in ((0, 51), (49, 3), (51, 10), (52, 1)):
        with pytest.raises(InputError, match=r"has no bars from 2021-05-19T00:5.* to 2021-05-19T00:53:00Z"):
            replay_log_prices(bars, START + first * 60, count * 60, 60)


def test_windows_that_do_not_fit_are_refused() -> None:
    bars = _walk(60)
    with pytest.raises(
        InputError, match="covers 2021-05-19T00:00:00Z to 2021-05-19T01:00:00Z, expected 2021-05-18T23:59:00Z"
    ):
        replay_log_prices(bars, START - 60, 600, 60)
    with pytest.raises(InputError, match="covers 2021-05-19T00:00:00Z to 2021-05-19T01:00:00Z"):
        replay_log_prices(bars, START, 3660, 60)
    with pytest.raises(
        InputError, match=r"shock.start is 2021-05-19T00:00:10Z, .* Use 2021-05-19T00:00:00Z or 2021-05-19T00:01:00Z"
    ):
        replay_log_prices(bars, START + 10, 600, 10)
    with pytest.raises(InputError, match="step_seconds is 90, expected whole bars of 60 s"):
        replay_log_prices(bars, START, 900, 90)
    with pytest.raises(InputError, match="horizon is 100 s"):
        replay_log_prices(bars, START, 100, 60)


def test_load_replay_aligns_assets_of_different_bars(tmp_path: Path) -> None:
    _store(_walk(120), tmp_path / "BTCUSDT_1m.parquet")
    _store(_walk(30, bar_seconds=300, seed=2), tmp_path / "ETHUSDT_5m.parquet")
    paths = load_replay(tmp_path, {}, ["BTC", "ETH"], "2021-05-19T00:30:00", 3600, 300)
    assert list(paths) == ["BTC", "ETH"]
    assert paths["BTC"][0] == np.log(_walk(120).open[30])
    assert (paths["ETH"][1:] == np.log(_walk(30, 300, 2).close[6:18])).all()
    with pytest.raises(InputError, match=r"shock.start is 'noon', expected an ISO 8601 time"):
        load_replay(tmp_path, {}, ["BTC"], "noon", 3600, 60)


@pytest.mark.skipif(not MAY.is_dir(), reason="needs real prices in ../shared/data/prices_1m_spot_2021-05")
def test_19_may_2021_is_the_file() -> None:
    paths = load_replay(MAY, {}, ["BTC", "ETH", "XRP"], "2021-05-19T00:00:00Z", 86400, 60)
    for asset, path in paths.items():
        table = pyarrow.parquet.read_table(find_file(MAY, asset, {})).to_pandas().set_index("time")
        day = table.loc["2021-05-19 00:00":"2021-05-19 23:59"]
        assert len(day) == 1440
        assert path[0] == np.log(day.open.iloc[0])
        assert (path[1:] == np.log(day.close.to_numpy())).all()
    assert np.exp(paths["BTC"].min() - paths["BTC"][0]) - 1 == pytest.approx(-0.298, abs=0.0005)
    with pytest.raises(InputError, match="has no bars from 2021-04-25T04:0"):
        load_replay(MAY, {}, ["BTC"], "2021-04-25T00:00:00Z", 86400, 60)
