"""The venue files, and what the schema refuses."""

from __future__ import annotations

import copy
import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command

from stress.spec import InputError, read_toml, validate
from stress.triggers import deductions, maintenance
from stress.venue_table import venue_table
from stress.venues import Market, TierStaging, Venue

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "configs" / "venues").glob("*.toml"))
DATA = ROOT.parent / "shared" / "data"
NOW = ("binance", "bybit", "okx")
OTHERS = ("bitmex", "dydx", "hyperliquid")
SPRING_2021 = tuple(f"{name}-2021-03" for name in NOW)
SHARES = {"binance": 0.5, "bybit": 0.3, "okx": 0.2}


def table(name: str) -> dict[str, Any]:
    return copy.deepcopy(read_toml(ROOT / "configs" / "venues" / f"{name}.toml"))


def load(name: str) -> Venue:
    return validate(Venue, table(name), f"{name}.toml")


def ladder(market: Market) -> tuple[np.ndarray, np.ndarray]:
    """Floors [USD] and rates [1] of a market."""
    return np.array([tier.floor_usd for tier in market.tiers]), np.array([tier.rate for tier in market.tiers])


def refusal(data: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        validate(Venue, data, "venue.toml")
    return str(caught.value)


def binance_snapshot(date: str, *suffixes: str) -> dict[str, list[dict[str, Any]]]:
    """Bracket tables by contract, with the exchange's own deductions under info.cum."""
    path = DATA / "tiers_binance" / f"binance_leverage_tiers_{date}.json.gz"
    if not path.exists():
        pytest.skip(f"{path.name} of the market data beside the repository is absent")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        brackets = json.load(file)
    return {name: tiers for name, tiers in brackets.items() if not suffixes or name.endswith(suffixes)}


def columns(tiers: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Floors, rates and published deductions of one contract."""
    rows = [(t["minNotional"], t["maintenanceMarginRate"], float(t["info"]["cum"])) for t in tiers]
    floor, rate, cum = np.array(rows, dtype=float).T
    return floor, rate, cum


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_a_venue(path: Path) -> None:
    venue = validate(Venue, read_toml(path), path.name)
    assert path.stem.removesuffix("-2021-03") == venue.name
    assert len(venue.pools) == 1
    assert all(venue.pool_of(asset) == 0 for asset in venue.markets)


def test_all_files_are_there() -> None:
    assert {path.stem for path in FILES} == {*NOW, *OTHERS, *SPRING_2021}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_number_has_a_source(path: Path) -> None:
    venue = validate(Venue, read_toml(path), path.name)
    sources = [venue.source, venue.funding.source, *(pool.source for pool in venue.pools)]
    sources += [text for market in venue.markets.values() for text in (market.source, market.tiers_source)]
    sources += [] if venue.vault is None else [venue.vault.source]
    assert all(len(text.split()) >= 4 for text in sources)
    assert all("assumed" in market.source for market in venue.markets.values())


@pytest.mark.parametrize(
    ("names", "totals"),
    [
        (NOW, {"BTC": 40e9, "ETH": 30e9, "SOL": 8e9, "XRP": 4e9, "DOGE": 2.5e9}),
        (SPRING_2021, {"BTC": 45e9, "ETH": 28e9, "XRP": 10e9}),
    ],
    ids=["now", "2021"],
)
def test_volume_is_split_over_the_venues(names: tuple[str, ...], totals: dict[str, float]) -> None:
    for venue in map(load, names):
        assert {asset: market.adv_usd for asset, market in venue.markets.items()} == pytest.approx(
            {asset: SHARES[venue.name] * total for asset, total in totals.items()}
        )


def test_venues_differ_where_their_rules_do() -> None:
    binance, bybit, okx = map(load, NOW)
    assert [v.adl.drawdown_share for v in (binance, bybit, okx)] == [None, 0.3, 0.3]
    assert [v.adl.straight_to_adl for v in (binance, bybit, okx)] == [False, False, True]
    assert [v.adl.close_at for v in (binance, bybit, okx)] == ["bankruptcy", "bankruptcy", "mark"]
    assert [v.fee_in_trigger for v in (binance, bybit, okx)] == [False, False, True]
    assert [v.liquidation_fee_bps for v in (binance, bybit, okx)] == [125, 0, 5]
    assert [v.surplus_to for v in (binance, bybit, okx)] == ["trader", "pool", "pool"]
    by_tiers = [v.staging for v in (binance, bybit, okx) if isinstance(v.staging, TierStaging)]
    assert [(rule.down, rule.whole_below) for rule in by_tiers] == [(1, 1), (1, 1), (2, 2)]
    assert [v.mark for v in (binance, bybit, okx)] == ["median", "median", "index_average"]
    assert [getattr(v.staging, "pause_seconds", None) for v in (binance, bybit, okx)] == [0, 0, 60]
    assert {v.hedged_legs for v in (binance, bybit, okx)} == {"netted"}
    assert binance.funding.model_dump(exclude={"source"}) == okx.funding.model_dump(exclude={"source"})


def test_hyperliquid_closes_a_fifth_first_and_a_vault_backs_it() -> None:
    venue = load("hyperliquid")
    assert venue.staging.model_dump() == {"kind": "fraction", "share": 0.2, "above_usd": 1e5, "pause_seconds": 30}
    assert venue.vault is not None
    assert (venue.vault.entry_ratio, venue.vault.profit_bps) == (pytest.approx(2 / 3), None)
    assert [(pool.equity_usd, pool.takeover_multiple) for pool in venue.pools] == [(0, 0)]
    assert (venue.liquidation_fee_bps, venue.surplus_to, venue.adl.close_at) == (0, "trader", "index")
    assert venue.funding.interval_hours == 1
    for market in venue.markets.values():
        (tier,) = market.tiers
        assert tier.max_leverage is not None
        assert tier.rate == 0.5 / tier.max_leverage
    assert venue.markets["BTC"].tiers[0].rate == 0.0125


def test_dydx_restores_margin_and_deleverages_only_where_the_fund_is_short() -> None:
    venue = load("dydx")
    assert venue.staging.model_dump() == {"kind": "restore", "target": 1.05, "pause_seconds": 0}
    assert (venue.liquidation_fee_bps, venue.surplus_to) == (150, "trader")
    assert venue.adl.model_dump(include={"ranking", "close_at", "leftover", "drawdown_share"}) == {
        "ranking": "pro_rata", "close_at": "bankruptcy", "leftover": False, "drawdown_share": None,
    }  # fmt: skip
    assert venue.pools[0].takeover_multiple == 0 < venue.pools[0].equity_usd
    for market in venue.markets.values():
        assert market.take_bound_bps == pytest.approx(1.5 * market.tiers[0].rate * 1e4)


def test_bitmex_is_inverse_and_its_fund_takes_over() -> None:
    venue = load("bitmex")
    assert [(asset, market.contract) for asset, market in venue.markets.items()] == [("BTC", "inverse")]
    assert venue.takes("BTC") and not venue.takes("ETH")
    assert venue.pools[0].equity_usd == pytest.approx(34_678 * 6_400, rel=1e-3)
    assert venue.pools[0].takeover_multiple > 0 < venue.markets["BTC"].unwind_usd_per_minute
    assert (venue.surplus_to, venue.adl.close_at, venue.vault) == ("pool", "bankruptcy", None)
    assert isinstance(venue.staging, TierStaging)
    assert len(venue.markets["BTC"].tiers) > 1


@pytest.mark.parametrize("name", NOW)
def test_2021_keeps_all_rules_but_brackets_and_volume(name: str) -> None:
    now, then = load(name), load(f"{name}-2021-03")
    kept = {"source", "pools", "markets", "haircuts"}
    assert then.haircuts == {token: now.haircuts[token] for token in ("BTC", "ETH")}
    assert then.model_dump(exclude=kept) == now.model_dump(exclude=kept)
    assert then.pools[0].equity_usd == now.pools[0].equity_usd
    for asset, market in then.markets.items():
        changed = {"tiers", "tiers_source", "adv_usd", "source"}
        assert market.model_dump(exclude=changed) == now.markets[asset].model_dump(exclude=changed)
        assert market.tiers == load("binance-2021-03").markets["BTC"].tiers


def test_brackets_differ_from_binances_only_where_another_venues_are_known() -> None:
    binance = load("binance")
    own = {
        (name, asset)
        for name in ("bybit", "okx")
        for asset, market in load(name).markets.items()
        if market.tiers != binance.markets[asset].tiers
    }
    assert own == {("bybit", "BTC"), ("okx", "SOL"), ("okx", "XRP"), ("okx", "DOGE")}


def test_binance_brackets_and_deductions_are_the_published_ones() -> None:
    published = binance_snapshot("2024-10-24", "/USDT:USDT")
    for asset, market in load("binance").markets.items():
        floor, rate, cum = columns(published[f"{asset}/USDT:USDT"])
        own_floor, own_rate = ladder(market)
        np.testing.assert_array_equal(own_floor, floor)
        np.testing.assert_array_equal(own_rate, rate)
        np.testing.assert_allclose(deductions(own_floor, own_rate), cum, rtol=1e-12, atol=1e-6)
        assert [tier.max_leverage for tier in market.tiers] == [
            tier["maxLeverage"] for tier in published[f"{asset}/USDT:USDT"]
        ]


def test_deductions_of_every_binance_contract() -> None:
    contracts = binance_snapshot("2024-10-24")
    assert len(contracts) > 300
    for tiers in contracts.values():
        floor, rate, cum = columns(tiers)
        np.testing.assert_allclose(deductions(floor, rate), cum, rtol=1e-9, atol=0.01)


def test_spring_2021_btc_brackets_still_stood_in_september_2022() -> None:
    floor, rate, cum = columns(binance_snapshot("2022-09-24")["BTC/USDT"])
    own_floor, own_rate = ladder(load("binance-2021-03").markets["BTC"])
    np.testing.assert_array_equal(own_floor, floor)
    np.testing.assert_array_equal(own_rate, rate)
    np.testing.assert_allclose(deductions(own_floor, own_rate), cum, rtol=1e-12, atol=1e-6)


def test_bybit_btc_deductions_are_the_published_ones() -> None:
    """The deductions of Bybit's margin-parameters page for BTCUSDT, which the file does not hold."""
    published = [0, 1_200, 3_020, 4_300, 5_820, 8_460, 15_460, 20_500, 46_000, 66_000, 80_000, 160_000, 300_000]
    published += [452_000, 502_000, 777_000, 837_000, 967_000, 1_107_000, 1_482_000]
    floor, rate = ladder(load("bybit").markets["BTC"])
    np.testing.assert_allclose(deductions(floor, rate), published, rtol=1e-12, atol=1e-6)


def test_deductions_of_a_bybit_table() -> None:
    path = DATA / "tiers_bybit" / "bybit_tiers_2025-12-29.csv"
    if not path.exists():
        pytest.skip(f"{path.name} of the market data beside the repository is absent")
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["symbol"] == "BTCPERP"]
    floor, rate, published = (
        np.array([float(row[key]) for row in rows])
        for key in ("min_notional", "maintenance_margin_rate", "mm_deduction")
    )
    assert len(rows) == 30
    np.testing.assert_allclose(deductions(floor, rate), published, rtol=1e-12, atol=1e-6)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_maintenance_agrees_with_the_bracket_look_up(path: Path) -> None:
    """M(n) = sum over brackets of rate x the notional inside the bracket, integrated bracket by bracket."""
    for market in validate(Venue, read_toml(path), path.name).markets.values():
        floor, rate = ladder(market)
        notional = np.concatenate([floor, floor + 1.0, np.geomspace(1e2, 3e9, 50)])
        width = np.diff(np.append(floor, np.inf))
        expected = (rate * np.clip(notional[:, None] - floor, 0.0, width)).sum(axis=1)
        actual = maintenance(notional, np.broadcast_to(rate, (notional.size, rate.size)), deductions(floor, rate))
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-6)


def test_tiers_out_of_order_are_refused() -> None:
    data = table("binance")
    tiers = data["markets"]["BTC"]["tiers"]
    tiers[2], tiers[3] = tiers[3], tiers[2]
    assert refusal(data) == (
        "venue.toml: markets.BTC: tiers[3].floor_usd is 600000 USD, expected more than tiers[2].floor_usd = 3e+06 USD. "
        "List tiers by ascending floor."
    )


@pytest.mark.parametrize(
    ("tier", "line"),
    [
        ({"rate": 0.004}, "tiers[1].rate is 0.004, expected more than tiers[0].rate = 0.004"),
        ({"floor_usd": 0}, "tiers[1].floor_usd is 0 USD, expected more than tiers[0].floor_usd = 0 USD"),
    ],
)
def test_equal_tiers_are_refused(tier: dict[str, float], line: str) -> None:
    data = table("binance")
    data["markets"]["BTC"]["tiers"][1] |= tier
    assert f"venue.toml: markets.BTC: {line}" in refusal(data)


def test_a_first_floor_above_zero_is_refused() -> None:
    data = table("okx")
    del data["markets"]["SOL"]["tiers"][0]
    assert "markets.SOL: tiers[0].floor_usd is 500000 USD, expected 0." in refusal(data)


@pytest.mark.parametrize(
    ("second", "line"),
    [
        ({"name": "alts"}, "market BTC has 2 pools, expected exactly one."),
        ({"name": "alts", "markets": ["SOL"]}, "market SOL has 2 pools, expected exactly one."),
        ({"name": "alts", "markets": ["ADA"]}, "pool 'alts' stands behind 'ADA', expected one of the venue's markets"),
        ({"markets": []}, "pools are named ['main', 'main'], expected different names."),
        (
            {"name": "alts", "markets": [], "topped_up_by": "mian"},
            "pool 'alts' is topped up by 'mian', expected another pool of the venue (main). Correct pools.topped_up_by",
        ),
        (
            {"name": "alts", "markets": [], "topped_up_by": "alts"},
            "pool 'alts' is topped up by 'alts', expected another",
        ),
        ({"name": "alts", "markets": [], "floor_usd": -1}, "pools[1].floor_usd is -1, expected greater than or equal"),
    ],
)
def test_a_market_needs_exactly_one_pool(second: dict[str, Any], line: str) -> None:
    data = table("bybit")
    data["pools"].append(data["pools"][0] | second)
    assert f"venue.toml: {line}" in refusal(data)


def test_a_market_without_a_pool_is_refused() -> None:
    data = table("bybit")
    data["pools"][0]["markets"] = ["BTC", "ETH", "SOL", "XRP"]
    assert "market DOGE has 0 pools, expected exactly one." in refusal(data)


def test_a_pool_alone_is_topped_up_by_none() -> None:
    data = table("bybit")
    data["pools"][0]["topped_up_by"] = "other"
    assert "pool 'main' is topped up by 'other', expected another pool of the venue (there is none)." in refusal(data)


def test_two_pools_share_the_markets() -> None:
    data = table("okx")
    main = data["pools"][0]
    alts = {"name": "alts", "markets": ["SOL", "XRP", "DOGE"], "topped_up_by": "main", "floor_usd": 1e6}
    data["pools"] = [main | {"markets": ["BTC", "ETH"]}, main | alts]
    venue = validate(Venue, data, "venue.toml")
    assert [venue.pool_of(asset) for asset in ("BTC", "ETH", "SOL", "XRP", "DOGE")] == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("where", "wrong", "meant"),
    [((), "liquidation_fee_bp", "liquidation_fee_bps"), (("adl",), "drawdown_shares", "drawdown_share")],
)
def test_an_unknown_key_is_refused_with_a_suggestion(where: tuple[str, ...], wrong: str, meant: str) -> None:
    data = table("bybit")
    inner = data
    for key in where:
        inner = inner[key]
    inner[wrong] = inner.pop(meant)
    named = ".".join([*where, wrong])
    assert f"venue.toml: {named} is not a known key. Did you mean '{meant}'?" in refusal(data)


STAGINGS = {
    "full": {},
    "tiers": {"down": 2, "whole_below": 2, "pause_seconds": 30},
    "fraction": {"share": 0.2, "above_usd": 1e5, "pause_seconds": 30},
    "restore": {"target": 1.25, "pause_seconds": 0},
}


@pytest.mark.parametrize("kind", STAGINGS)
def test_every_staging_has_its_own_fields_only(kind: str) -> None:
    data = table("okx") | {"staging": {"kind": kind} | STAGINGS[kind]}
    assert validate(Venue, data, "venue.toml").staging.model_dump() == data["staging"]
    foreign = next(key for other, keys in STAGINGS.items() for key in keys if key not in STAGINGS[kind])
    data["staging"][foreign] = 1
    assert refusal(data).startswith(f"venue.toml: staging.{foreign} is not a known key. ")


@pytest.mark.parametrize(
    ("staging", "line"),
    [
        ({"kind": "restore", "target": 1}, "staging.target is 1, expected greater than 1. Change it."),
        ({"kind": "fraction", "share": 1}, "staging.share is 1, expected less than 1. Change it."),
        ({"kind": "fraction"}, "staging.share is missing, a value was expected. Add it."),
        ({"kind": "tiers", "pause_seconds": -1}, "staging.pause_seconds is -1, expected greater than or equal to 0."),
        ({"kind": "ful"}, "staging.kind is 'ful', expected one of 'full', 'tiers', 'fraction', 'restore'. Choose one."),
    ],
)
def test_staging_out_of_bounds_is_refused(staging: dict[str, Any], line: str) -> None:
    assert f"venue.toml: {line}" in refusal(table("okx") | {"staging": staging})


@pytest.mark.parametrize(
    ("vault", "line"),
    [
        (
            {"profit_bps": [250, 50]},
            "vault: profit_bps is [250, 50] bp, expected the lower bound first. Exchange the two.",
        ),
        ({"profit_bps": [50]}, "vault.profit_bps is [50], expected at least 2 items"),
        ({"profit_bps": 50}, "vault.profit_bps is 50, expected a valid list. Change it."),
        ({"equity_usd": 0}, "vault.equity_usd is 0, expected greater than 0. Change it."),
        ({"capacity_usd": 0}, "vault.capacity_usd is 0, expected greater than 0. Change it."),
        ({"entry_ratio": 0}, "vault.entry_ratio is 0, expected greater than 0. Change it."),
        ({"unwind_usd_per_minute": -1}, "vault.unwind_usd_per_minute is -1, expected greater than or equal to 0."),
        ({"entry": 1}, "vault.entry is not a known key. Did you mean 'entry_ratio'?"),
    ],
)
def test_a_vault_out_of_bounds_is_refused(vault: dict[str, Any], line: str) -> None:
    data = table("hyperliquid")
    data["vault"] |= vault
    assert f"venue.toml: {line}" in refusal(data)


@pytest.mark.parametrize("bounds", [[50, 250], [-20, -20], [-5.5, 0]])
def test_bounds_of_a_vaults_profit_may_be_losses(bounds: list[float]) -> None:
    data = table("hyperliquid")
    data["vault"]["profit_bps"] = bounds
    assert validate(Venue, data, "venue.toml").vault == load("hyperliquid").vault.model_copy(  # pyright: ignore
        update={"profit_bps": tuple(bounds)}
    )


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"haircuts": {"BTC": 1.1}}, "haircuts.BTC is 1.1, expected less than or equal to 1. Change it."),
        ({"haircuts": {"USD": 0.1}}, "haircuts.USD is 0.1, expected tokens other than USD: cash counts in full."),
        ({"hedged_legs": "both"}, "hedged_legs is 'both', expected 'netted' or 'refused'. Change it."),
    ],
)
def test_wrong_collateral_rules_are_refused(change: dict[str, Any], line: str) -> None:
    assert f"venue.toml: {line}" in refusal(table("okx") | change)


def test_a_contract_of_another_kind_is_refused() -> None:
    data = table("bitmex")
    data["markets"]["BTC"]["contract"] = "quanto"
    assert "venue.toml: markets.BTC.contract is 'quanto', expected 'linear' or 'inverse'." in refusal(data)


def test_an_unknown_ranking_is_refused() -> None:
    data = table("okx")
    data["adl"]["ranking"] = "water_filling"
    assert validate(Venue, data, "venue.toml").adl.ranking == "water_filling"
    data["adl"]["ranking"] = "fifo"
    assert "adl.ranking is 'fifo', expected 'queue', 'pro_rata' or 'water_filling'." in refusal(data)


def cells(name: str, **changes: Any) -> dict[str, str]:
    """What the table says of a venue, by its head."""
    lines = venue_table([validate(Venue, table(name) | changes, "venue.toml")]).splitlines()
    head, _, row = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return dict(zip(head, row, strict=True))


def test_the_table_says_what_the_files_do() -> None:
    assert [cells(name)["closes"] for name in (*NOW, *OTHERS)] == [
        "down one tier; whole in the lowest one",
        "down one tier; whole in the lowest one",
        "down two tiers; whole in the lowest two",
        "down one tier; whole in the lowest one",
        "what restores 1.05 x maintenance",
        "20 % first above 100 k USD, then the rest",
    ]
    okx, hyperliquid, dydx, bitmex = (cells(name) for name in ("okx", "hyperliquid", "dydx", "bitmex"))
    assert okx["liquidated when equity <="] == "maintenance + fee"
    assert okx["pause"] == "60 s"
    assert okx["ADL starts"] == "fund empty; fund 30 % down in 8 h, no order to the book then; order left over"
    assert okx["layers"] == "book, auction, takeover, adl"
    assert hyperliquid["layers"] == "book, vault, adl"
    assert hyperliquid["vault"] == "400 M, below 0.67 x maintenance, at bankruptcy"
    assert hyperliquid["fund, USD"] == "none"
    assert hyperliquid["ADL starts"] == "account bankrupt, as there is no fund; order left over"
    assert dydx["ADL starts"] == "fund empty"
    assert dydx["fee; rest to"] == "1.5 %; trader"
    assert bitmex["contracts"] == "inverse BTC"
    assert bitmex["collateral (haircut)"] == "USD, BTC (0 %)"
    pool = {"equity_usd": 1.5e9, "takeover_multiple": 0, "source": "made up"}
    others = {"name": "b", "markets": ["ETH", "SOL", "XRP", "DOGE"], "topped_up_by": "a"}
    two = [pool | {"name": "a", "markets": ["BTC"]}, pool | others]
    assert cells("okx", pools=two)["fund, USD"] == (
        "1.5 bn for BTC, takes nothing over; 1.5 bn for ETH, SOL, XRP, DOGE, takes nothing over, topped up by a"
    )


def test_the_command_prints_a_line_for_each_file(liqstress: Command) -> None:
    outcome = liqstress("venues", *FILES)
    assert (outcome.code, len(outcome.out.splitlines())) == (0, 2 + len(FILES))
    assert outcome.out == venue_table(validate(Venue, read_toml(path), path.name) for path in FILES)
    wrong = liqstress("venues", ROOT / "configs" / "quickstart.toml")
    assert wrong.code == 2
    assert "quickstart.toml: " in wrong.err


def test_readme_shows_the_rules_that_the_files_state() -> None:
    names = ("binance", "bybit", "okx", "bitmex", "hyperliquid", "dydx")
    assert venue_table(load(name) for name in names) in (ROOT / "README.md").read_text(encoding="utf-8")
