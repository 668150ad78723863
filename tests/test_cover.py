"""Cover-N by hand and by brute force: accounts in files made for the purpose."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Command, write_small
from test_results import backstopped

from stress.build import opening
from stress.config import load_config
from stress.cover import Cover, close_out, cover, worst_moves
from stress.cross import one_by_one
from stress.spec import InputError

HEADER = "venue,account,asset,quantity,entry_price,margin,mode,count\n"


def config(folder: Path, rows: str, cash: str = "", venue: tuple[str, str] = ("", ""), **impact: float):
    """The small run with other positions, and `here.toml` with something replaced."""
    path = write_small(folder)
    (folder / "positions.csv").write_text(HEADER + rows, encoding="utf-8")
    text = (folder / "here.toml").read_text()
    assert venue[0] in text
    (folder / "here.toml").write_text(text.replace(*venue), encoding="utf-8")
    given: dict = {f"impact.{key}": value for key, value in impact.items()}
    if cash:
        (folder / "collateral.csv").write_text("venue,account,token,amount\n" + cash, encoding="utf-8")
        given["portfolio.collateral"] = str(folder / "collateral.csv")
    return load_config(path, overrides=given)


def alone(found: dict[str, Cover]) -> Cover:
    """Of the one fund there is."""
    (one,) = found.values()
    return one


def test_without_impact_a_loss_is_what_the_margin_lacks(tmp_path) -> None:
    """Longs of 1000 USD with margins of 150, 190, 250 and a short lose 200 at -20 %: 50, 10, 0, 0."""
    rows = "".join(f"here,{i},BTC,10,100,{margin},isolated,1\n" for i, margin in enumerate((190, 150, 250)))
    found = alone(cover(config(tmp_path, rows + "here,9,BTC,-10,100,50,isolated,1\n", i_ref=0.0), {"BTC": -0.2}, 3))
    assert [(d.row, d.copies, d.loss, d.notional) for d in found.defaults] == [
        (2, 1, pytest.approx(50), pytest.approx(800)),
        (1, 1, pytest.approx(10), pytest.approx(800)),
    ]
    assert found.loss == pytest.approx(60)
    assert found.ratio == pytest.approx(500 / 60)


def test_a_rise_costs_by_the_shorts(tmp_path) -> None:
    rows = "here,1,BTC,10,100,150,isolated,1\nhere,2,BTC,-10,100,150,isolated,1\n"
    found = alone(cover(config(tmp_path, rows, i_ref=0.0), {"BTC": 0.2}, 1))
    assert [(d.row, d.loss) for d in found.defaults] == [(2, pytest.approx(50))]


def test_the_close_out_is_paid_along_the_impact_curve(tmp_path) -> None:
    """i_ref 1 %, sigma 5 %, 2 % of a day's volume, delta 0.7: I = 0.01 x 2 x 2^0.7, its mean I / 1.7, at one venue."""
    rows = "here,1,BTC,250,100,4500,isolated,1\n"
    found = alone(cover(config(tmp_path, rows, depth=False), {"BTC": -0.2}, 1))
    mean = 0.02 * 2**0.7 / 1.7
    assert found.loss == pytest.approx(250 * (100 - 80 * math.exp(-mean)) - 4500, rel=1e-6)


def test_depth_withdraws_with_the_move(tmp_path) -> None:
    """A move of z = 20 five-minute deviations: g = 1 + (20 / 11.8)^1.75; the flow counts g times."""
    log_move = 20 * 0.05 / math.sqrt(288)
    rows = "here,1,BTC,-100,100,700,isolated,1\n"
    found = alone(cover(config(tmp_path, rows), {"BTC": math.expm1(log_move)}, 1))
    price = 100 * math.exp(log_move)
    flow = 100 * price / 1e6 * (1 + (20 / 11.8) ** 1.75)
    mean = 0.02 * (flow / 0.01) ** 0.7 / 1.7
    assert found.loss == pytest.approx(100 * (price * math.exp(mean) - 100) - 700, rel=1e-4)


def test_copies_fill_up_the_n(tmp_path) -> None:
    rows = "here,1,BTC,10,100,150,isolated,3\nhere,2,BTC,10,100,160,isolated,50\n"
    run = config(tmp_path, rows, i_ref=0.0)
    assert [alone(cover(run, {"BTC": -0.2}, n)).loss for n in (1, 3, 5)] == pytest.approx([50, 150, 230])
    assert [d.copies for d in alone(cover(run, {"BTC": -0.2}, 5)).defaults] == [3, 2]


def test_gains_elsewhere_count_within_an_account_and_coins_at_the_moved_price(tmp_path) -> None:
    """At -20 % in BTC and +10 % in ETH: 1000 USD of each lose 200 and gain 100; a coin of 100 is worth 80."""
    rows = "here,a,BTC,10,100,,cross,1\nhere,a,ETH,100,10,,cross,1\nhere,b,BTC,20,100,,cross,1\n"
    cash = "here,a,USD,60\nhere,b,USD,150\nhere,b,BTC,1\n"
    run = config(
        tmp_path, rows, cash, venue=('mark = "median"', 'mark = "median"\nhaircuts = { BTC = 0.1 }'), i_ref=0.0
    )
    found = alone(cover(run, {"BTC": -0.2, "ETH": 0.1}, 2))
    assert [(d.row, d.loss) for d in found.defaults] == [(3, pytest.approx(170)), (1, pytest.approx(40))]


def test_inverse_contracts_are_settled_in_coins(tmp_path) -> None:
    """1000 USD long from 100 with 1.5 coins, at 80: profit 1000 (1/100 - 1/80) = -2.5 coins, one of 80 USD too much."""
    run = config(
        tmp_path, "here,1,BTC,1000,100,,cross,1\n", "here,1,BTC,1.5\n",
        venue=("[markets.BTC]", '[markets.BTC]\ncontract = "inverse"'), i_ref=0.0,
    )  # fmt: skip
    assert alone(cover(run, {"BTC": -0.2}, 1)).loss == pytest.approx(80)


def test_a_loss_goes_to_the_funds_by_maintenance(tmp_path) -> None:
    """BTC 2000 USD at -20 % and ETH 1000 USD, all at 0.5 %: 1600 to 1000 of a loss of 350."""
    pools = '[{ name = "main", equity_usd = 500, takeover_multiple = 3, source = "made up for tests" }]'
    two = (
        '[{ name = "one", equity_usd = 500, takeover_multiple = 3, markets = ["BTC"], source = "x" }, '
        '{ name = "two", equity_usd = 50, takeover_multiple = 3, markets = ["ETH"], source = "x" }]'
    )
    rows = "here,a,BTC,20,100,,cross,1\nhere,a,ETH,100,10,,cross,1\n"
    found = cover(config(tmp_path, rows, "here,a,USD,50\n", venue=(pools, two), i_ref=0.0), {"BTC": -0.2}, 1)
    assert found["here/one"].loss == pytest.approx(350 * 1600 / 2600)
    assert found["here/two"].loss == pytest.approx(350 * 1000 / 2600)
    assert found["here/two"].size == 50


def test_a_population_by_brute_force() -> None:
    """The reference venues, account by account in a loop over the largest losses."""
    run = load_config(ROOT / "configs" / "crash.toml", overrides={"portfolio.population.rows": 2000})
    moves = {"BTC": -0.2, "ETH": -0.23, "SOL": -0.3}
    start, everyone, schedules = opening(run)
    accounts = one_by_one(everyone.ladder, np.arange(len(everyone.ladder)), 5)
    move = np.array([moves.get(asset, 0.0) for asset in run.assets])
    loss, _ = close_out(accounts, run, schedules, start, move)
    for v, (name, found) in enumerate(cover(run, moves, 4).items()):
        left, total = 4.0, 0.0
        for lost, copies in sorted(zip(loss[accounts.venue == v], accounts.count[accounts.venue == v], strict=True))[
            ::-1
        ]:
            taken = min(left, copies)
            left, total = left - taken, total + taken * lost
        assert found.loss == pytest.approx(total), name
        assert total > 0


def test_moves_of_the_worst_path() -> None:
    ds = backstopped()
    ds["fund_drawdown"][4, 0] = 1e12
    ds["index_low"][4, 1, 0], ds["index_high"][4, 2, 0], ds["index_high"][4, 2, 1] = 0.7, 1.2, 1.5
    moves = worst_moves(ds)
    assert moves == pytest.approx({"BTC": -0.3, "ETH": 0.5, "SOL": 0, "XRP": 0, "DOGE": 0}, abs=1e-7)


def test_what_plays_no_part_is_said(small: Path, liqstress: Command) -> None:
    tops, flat = "behaviour.top_ups={share=0.9, multiple=1.0}", "impact.i_ref=0.0"
    words = "cover", small, "--move", "BTC=-0.2", "--set", flat
    alone, topped = liqstress(*words), liqstress(*words, "--set", tops)
    assert "play no part" not in alone.out
    assert topped.out == alone.out + "Accounts and books are those of the start: behaviour.top_ups play no part.\n"
    desk = "overlays=[{kind='default', venue='here', positions={BTC=1e4}, equity_usd=1e3, loss_usd=1, start_minutes=2}]"
    assert "overlays[0] 1 8.00 k USD 1.00 k USD" in " ".join(liqstress(*words, "--set", desk).out.split())


@pytest.mark.parametrize(
    ("moves", "n", "message"),
    [
        ({"XRP": -0.2}, 2, r"move names 'XRP', expected an asset of the run \(BTC, ETH\)"),
        ({"BTC": -1.5}, 2, "move of BTC is -1.5, expected more than -1"),
        ({"BTC": 0.0}, 2, "moves are all zero"),
        ({"BTC": -0.2}, 0, "n is 0, expected at least 1"),
    ],
)
def test_mistakes_are_refused(small, moves, n, message) -> None:
    with pytest.raises(InputError, match=message):
        cover(load_config(small), moves, n)
