"""Accounts on cross margin: what is read, to which engine it goes, and that both engines agree where they may."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reference.bridge import HOURLY, engine
from reference.small import crowd, market, pool, positions_of, run_of, two_way, venue, write_positions

from stress.build import build
from stress.collateral import AllAccounts, read_accounts
from stress.cross import BLOCK_OF_ACCOUNTS, CrossAccounts, coins_held, compile_accounts, paths_together
from stress.portfolio import Positions, Terms
from stress.spec import BLOCK, InputError

ASSETS = ("BTC", "ETH", "SOL")
VENUES = {"binance": Terms(ASSETS, tokens=("BTC",)), "okx": Terms(("BTC", "ETH"))}
POSITIONS = """venue,account,asset,quantity,entry_price,margin,mode,count
okx,7,ETH,-2,4100,,cross,3
binance,iso,BTC,0.5,110000,900,isolated,4
binance,7,SOL,10,180,,cross,2
okx,lone,BTC,1,111000,,cross,5
okx,7,BTC,1,112000,,cross,3
binance,coins,BTC,-1,112000,,cross,1
"""
COLLATERAL = """venue,account,token,amount
binance,coins,BTC,0.5
okx,lone,USD,2000
okx,7,USD,-10.5
binance,7,USD,700
binance,coins,USD,5
"""


def read(folder: Path, positions: str = POSITIONS, collateral: str = COLLATERAL, **given: bool) -> AllAccounts:
    for name, text in (("positions.csv", positions), ("collateral.csv", collateral)):
        (folder / name).write_text(text, encoding="utf-8")
    return read_accounts(folder / "positions.csv", folder / "collateral.csv", VENUES, ASSETS, **given)


def test_rows_of_one_venue_and_name_are_one_account(tmp_path: Path) -> None:
    cross = read(tmp_path, single_on_ladders=False).cross
    assert cross is not None
    assert cross.row.tolist() == [0, 2, 3, 5]
    assert cross.venue.tolist() == [1, 0, 1, 0]
    assert cross.quantity.tolist() == [[1, -2, 0], [0, 0, 10], [1, 0, 0], [-1, 0, 0]]
    assert cross.entry_price.tolist() == [[112000, 4100, 0], [0, 0, 180], [111000, 0, 0], [112000, 0, 0]]
    assert cross.cash.tolist() == [-10.5, 700, 2000, 5]
    assert cross.coins is not None
    assert cross.coins.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0.5, 0, 0]]
    assert cross.count.tolist() == [3, 2, 5, 1]


def test_one_position_and_cash_alone_go_to_a_ladder(tmp_path: Path) -> None:
    everyone = read(tmp_path)
    assert everyone.row is not None and everyone.row.tolist() == [1, 2, 3]
    assert everyone.single is not None and everyone.single.tolist() == [False, True, True]
    ladder, cross = everyone.ladder, everyone.cross
    assert ladder.margin.tolist() == [900, 700, 2000]
    assert ladder.quantity.tolist() == [0.5, 10, 1]
    assert ladder.asset.tolist() == [0, 2, 0]
    assert ladder.count.tolist() == [4, 2, 5]
    assert cross is not None and cross.row.tolist() == [0, 5]
    assert cross.coins is not None and cross.coins[:, 0].tolist() == [0, 0.5]


def test_isolated_rows_are_left_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "positions.csv"
    path.write_text("\n".join([POSITIONS.splitlines()[0], "okx,1,BTC,1,9,8,isolated,2", ""]), encoding="utf-8")
    everyone = read_accounts(path, None, VENUES, ASSETS)
    assert (everyone.row, everyone.cross, len(everyone.ladder)) == (None, None, 1)


def test_all_accounts_may_be_on_ladders(tmp_path: Path) -> None:
    lines = POSITIONS.splitlines()
    everyone = read(tmp_path, "\n".join([lines[0], lines[4], ""]), "venue,account,token,amount\nokx,lone,USD,2000\n")
    assert everyone.cross is None
    assert everyone.ladder.margin.tolist() == [2000]


COINS = {
    "linear": Terms(ASSETS, tokens=("SOL",)),
    "inverse": Terms(("BTC", "ETH"), inverse=("BTC",), tokens=("BTC", "ETH")),
}
HEDGED = """venue,account,asset,quantity,entry_price,margin,mode,count
linear,a,BTC,3,100,,cross,2
linear,a,BTC,-1,90,,cross,2
linear,b,ETH,-1,10,,cross,1
linear,b,SOL,2,7,,cross,1
linear,b,ETH,1,12,,cross,1
inverse,c,BTC,-400,50,,cross,1
inverse,c,BTC,100,80,,cross,1
inverse,d,BTC,100,50,,cross,1
"""
POSTED = """venue,account,token,amount
linear,a,USD,50
linear,b,USD,20
inverse,c,BTC,3
inverse,d,BTC,1
inverse,d,ETH,2
"""


def read_hedged(folder: Path, old: str = "", new: str = "", **given: bool) -> AllAccounts:
    """The files above with something replaced in one of them."""
    assert old in HEDGED + POSTED
    for name, text in (("positions.csv", HEDGED), ("collateral.csv", POSTED)):
        (folder / name).write_text(text.replace(old, new, 1) if old else text, encoding="utf-8")
    return read_accounts(folder / "positions.csv", folder / "collateral.csv", COINS, ASSETS, **given)


def test_hedged_legs_are_netted_into_cash_or_coins(tmp_path: Path) -> None:
    """A long of 2 from 100 that lost 10 with its hedge; a hedge that lost 2; an inverse short that lost 0.75 coins."""
    cross = read_hedged(tmp_path, single_on_ladders=False).cross
    assert cross is not None and cross.coins is not None
    assert cross.row.tolist() == [0, 2, 5, 7]
    assert cross.quantity.tolist() == [[2, 0, 0], [0, 0, 2], [-300, 0, 0], [100, 0, 0]]
    assert cross.entry_price.tolist() == [[100, 0, 0], [0, 0, 7], [50, 0, 0], [50, 0, 0]]
    assert cross.cash.tolist() == [40, 18, 0, 0]
    assert cross.coins.tolist() == [[0, 0, 0], [0, 0, 0], [2.25, 0, 0], [1, 2, 0]]


def test_what_a_hedge_leaves_may_be_on_a_ladder_and_coins_never_are(tmp_path: Path) -> None:
    """The position that is left is not that of the account's first row."""
    everyone = read_hedged(tmp_path)
    assert everyone.row is not None and everyone.row.tolist() == [0, 2]
    ladder = everyone.ladder
    assert ladder.asset.tolist() == [0, 2]
    assert ladder.quantity.tolist() == [2, 2]
    assert ladder.entry_price.tolist() == [100, 7]
    assert ladder.margin.tolist() == [40, 18]
    assert ladder.count.tolist() == [2, 1]
    assert everyone.cross is not None and everyone.cross.row.tolist() == [5, 7]


COIN_REFUSALS = {
    "token that the venue does not take": (
        ("linear,b,USD,20", "linear,b,ETH,20"),
        "collateral.csv: row 2: token is 'ETH', expected one of USD, SOL, what 'linear' takes as collateral. Correct "
        "it, or give the token a haircut in the haircuts of the venue.",
    ),
    "token without a price": (
        ("inverse,c,BTC,3", "inverse,c,USDE,3"),
        "collateral.csv: row 3: token is 'USDE', expected one of USD, BTC, ETH, SOL: cash, or an asset of the run, "
        "which has a price. Did you mean 'USD'? Correct it, or add the asset to the run.",
    ),
    "inverse contract without coins": (
        ("inverse,c,BTC,3", "inverse,c,ETH,3"),
        "positions.csv: row 6: asset is 'BTC', an inverse contract without coin collateral: account 'c' at 'inverse' "
        "has -0.75 BTC and the profit of its hedged part, expected more than 0. Give its coins in "
        "portfolio.collateral.",
    ),
    "inverse contract with USD alone": (
        ("inverse,d,BTC,1\ninverse,d,ETH,2", "inverse,d,USD,900"),
        "positions.csv: row 8: asset is 'BTC', an inverse contract without coin collateral: account 'd' at 'inverse' "
        "has 0 BTC, expected more than 0. Give its coins in portfolio.collateral.",
    ),
    "nothing left": (
        ("linear,a,BTC,-1,", "linear,a,BTC,-3,"),
        "positions.csv: row 1: account is 'a' on cross margin at 'linear', whose longs and shorts are equal, expected "
        "a position that is left when they are netted. Leave its rows out: it cannot be liquidated.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COIN_REFUSALS)
def test_coins_and_hedges_that_cannot_be_are_refused(tmp_path: Path, name: str) -> None:
    change, line = COIN_REFUSALS[name]
    with pytest.raises(InputError) as caught:
        read_hedged(tmp_path, *change)
    assert str(caught.value) == f"{tmp_path}/{line}"


NAMES = [pa.int64(), pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.string_view()]


@pytest.mark.parametrize("kind", NAMES, ids=str)
@pytest.mark.parametrize("other", NAMES[:2], ids=str)
def test_accounts_are_the_same_whatever_the_type_of_their_names(
    tmp_path: Path, kind: pa.DataType, other: pa.DataType
) -> None:
    def names(values: list[int], kind: pa.DataType) -> pa.Array:
        return pa.array(values).cast(pa.string()).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(
            values if kind == pa.int64() else [str(value) for value in values], kind
        )  # fmt: skip

    rows = {
        "venue": ["okx", "okx", "okx", "binance"], "account": names([7, 8, 7, 7], kind),
        "asset": ["BTC", "BTC", "ETH", "BTC"], "quantity": [1.0, 2.0, 3.0, 4.0], "entry_price": [9.0] * 4,
        "margin": [None, 5.0, float("nan"), 6.0], "mode": ["cross", "isolated", "cross", "isolated"],
    }  # fmt: skip
    pq.write_table(pa.table(rows), tmp_path / "positions.parquet", row_group_size=1)
    posted = {"venue": ["okx"], "account": names([7], other), "token": ["USD"], "amount": [50]}
    pq.write_table(pa.table(posted), tmp_path / "collateral.parquet")
    everyone = read_accounts(tmp_path / "positions.parquet", tmp_path / "collateral.parquet", VENUES, ASSETS)
    assert everyone.cross is not None
    assert everyone.cross.quantity.tolist() == [[1, 3, 0]]
    assert everyone.cross.cash.tolist() == [50]
    assert everyone.ladder.quantity.tolist() == [2, 4]


def test_many_accounts_are_told_apart(tmp_path: Path) -> None:
    """3,000 accounts of two positions each at two venues, their rows and their collateral in any order."""
    rng = np.random.default_rng(2)
    key = [(v, f"a{i}") for v in VENUES for i in range(1500)]
    rows = [(v, name, asset, i) for i, (v, name) in enumerate(key) for asset in ("BTC", "ETH")]
    lines = [f"{v},{name},{asset},{1 + i},9,,cross,1" for v, name, asset, i in (rows[j] for j in rng.permutation(6000))]
    cash = [f"{key[i][0]},{key[i][1]},USD,{i}" for i in rng.permutation(3000)]
    head = POSITIONS.splitlines()[0]
    cross = read(tmp_path, "\n".join([head, *lines, ""]), "\n".join([COLLATERAL.splitlines()[0], *cash, ""])).cross
    assert cross is not None and len(cross) == 3000
    np.testing.assert_array_equal(cross.quantity[:, 0], cross.cash + 1)
    np.testing.assert_array_equal(cross.quantity[:, 1], cross.cash + 1)
    assert sorted(cross.cash) == list(range(3000))
    assert np.all(np.diff(cross.row) > 0)


def write_both(folder: Path, positions: Positions, assets: list[str]) -> None:
    """The same book twice: isolated, and on cross margin with the margins as cash."""
    write_positions(folder / "isolated.parquet", positions, ["one", "two"], assets)
    table = pq.read_table(folder / "isolated.parquet")
    rows = len(positions)
    cross = table.set_column(table.column_names.index("mode"), "mode", pa.array(["cross"] * rows))
    cross = cross.set_column(table.column_names.index("margin"), "margin", pa.nulls(rows, pa.float64()))
    pq.write_table(cross, folder / "cross.parquet")
    posted = {"venue": table["venue"], "account": table["account"], "token": ["USD"] * rows, "amount": table["margin"]}
    pq.write_table(pa.table(posted), folder / "collateral.parquet")


TIERS = [{"floor_usd": 0, "rate": 0.005}, {"floor_usd": 5e5, "rate": 0.01}, {"floor_usd": 2e6, "rate": 0.025}]
FLAT = [{"floor_usd": 0, "rate": 0.01}, {"floor_usd": 1e12, "rate": 0.02}, {"floor_usd": 2e12, "rate": 0.03}]
"""Tiers that nobody reaches: with the same number of them, both books share one program."""
WILD = {"kind": "gbm", "correlation": 0.6, "daily_volatility": {"A": 0.3, "B": 0.4}}


IMPACT = {"impact": {"i_ref": 0.01}}
ENGINES = {
    "no impact, tiers": (TIERS, {}),
    "impact": (FLAT, IMPACT),
    "triggers moved": (FLAT, IMPACT | {"shock": WILD, "barrier_correction": True}),
}


@pytest.mark.parametrize("name", ENGINES)
def test_both_engines_agree_on_accounts_of_one_position(name: str, tmp_path: Path) -> None:
    """One book on ladders and among the accounts on cross margin, in 64 bits: to 1e-7 of the volume.

    With tiers, a ladder knows the margins of its accounts by classes, and the split of a round into surplus and deficit
    is then exact only while they all lie on one side.
    """
    tiers, changes = ENGINES[name]
    rng, assets = np.random.default_rng(1), {"A": 0.025, "B": 0.03}
    positions = positions_of(crowd(rng, [(0, 0), (0, 1), (1, 0), (1, 1)]), ballast=0)
    write_both(tmp_path, positions, list(assets))
    layers = market(take_bound_bps=300, auction_usd_per_hour=1e12, tiers=tiers)
    places = [
        venue(name, dict.fromkeys(assets, layers), liquidation_fee_bps=20, pools=[pool()]) for name in ("one", "two")
    ]
    with jax.enable_x64(True):
        outputs, path = [], two_way(rng, 120, 3)
        for name, single in (("isolated", True), ("cross", True), ("cross", False)):
            files = {"positions": str(tmp_path / f"{name}.parquet"), "block_usd": 1e6}
            files |= {"collateral": str(tmp_path / "collateral.parquet")} if name == "cross" else {}
            built = build(run_of(places, assets, None, portfolio=files, **changes), single_on_ladders=single)
            assert (built.accounts is None) == single
            assert built.book.accounts == (positions.count.sum() if single else 0)
            outputs.append(engine(path, built, accounts=built.accounts))
    isolated, ladders, accounts = outputs
    volume = isolated["liquidation_volume"].sum(axis=(0, 1, 2, 3))
    assert volume.min() > 1e8
    assert np.max(accounts["ledger_residual"]) < 1e-12
    for name in HOURLY:
        np.testing.assert_array_equal(ladders[name], isolated[name], err_msg=name)
        rate = name in ("index_close", "index_low", "index_high", "basis_low", "basis_high", "accounts_liquidated")
        apart = np.abs(accounts[name] - isolated[name])
        both_nan = np.isnan(accounts[name]) & np.isnan(isolated[name])
        assert np.all(both_nan | (apart <= (1e-7 if rate else 1e-7 * volume))), (name, np.nanmax(apart / volume))


def some_accounts(n: int, assets: int, dtype: str = "float32"):
    """Arrays of `n` accounts at one venue."""
    places = [venue("one", {f"T{a}": market() for a in range(assets)})]
    run = run_of(places, {f"T{a}": 0.02 for a in range(assets)}, None, portfolio={"positions": "none"})
    from stress.build import _schedules

    legs = np.ones((n, assets))
    cross = CrossAccounts(np.zeros(n, np.int32), legs, 100 * legs, np.full(n, 1e3), np.full(n, 2.0), np.arange(n))
    return compile_accounts(cross, _schedules(run), np.full(assets, 100.0), 1, np.eye(assets) * 1e-4, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tables_are_of_the_dtype_of_the_run(dtype: str) -> None:
    accounts = some_accounts(3, 2, dtype)
    floats = {name for name, x in vars(accounts).items() if getattr(x, "dtype", np.dtype(int)).kind == "f"}
    assert floats >= {"quantity", "entry", "equity", "count", "floor", "rate", "deduction", "counted_fee", "barrier"}
    assert {getattr(accounts, name).dtype for name in floats} == {np.dtype(dtype)}
    assert coins_held(accounts).tolist() == [[[600, 0], [600, 0]]]


@pytest.mark.parametrize(
    "n, assets, dtype, together",
    # 30 numbers an account of 5 assets: 1 GiB / (30 n 4 bytes).
    [(10, 2, "float32", 1024), (10_000, 5, "float32", 512), (10_000, 5, "float64", 256), (100_000, 5, "float32", 64),
     (1_000_000, 2, "float32", 16)],
)  # fmt: skip
def test_fewer_paths_at_a_time_for_many_accounts(n: int, assets: int, dtype: str, together: int) -> None:
    accounts = some_accounts(n, assets, dtype)
    assert paths_together(accounts) == together
    state = -(-n // BLOCK_OF_ACCOUNTS) * BLOCK_OF_ACCOUNTS * (5 * assets + 5) * np.dtype(dtype).itemsize * together
    assert state < 2**30 * 1.1 or together == 16
    assert state > 2**30 / 2.2 or together == BLOCK


def test_without_accounts_on_cross_margin_a_block_is_whole() -> None:
    assert paths_together(None) == BLOCK


def test_a_chunk_of_broken_blocks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_both(tmp_path, positions_of(crowd(np.random.default_rng(1), [(0, 0)])), ["A"])
    files = {"positions": str(tmp_path / "cross.parquet"), "collateral": str(tmp_path / "collateral.parquet")}
    places = [venue(name, {"A": market()}) for name in ("one", "two")]
    monkeypatch.setattr("stress.cross.STATE_BYTES", 1)
    for chunk in (16, 48, 1024):
        assert build(run_of(places, {"A": 0.02}, None, portfolio=files, chunk=chunk), single_on_ladders=False)
    with pytest.raises(InputError, match=r"chunk is 40 paths, expected at most 16 or a multiple of it.*Choose 48\."):
        build(run_of(places, {"A": 0.02}, None, portfolio=files, chunk=40), single_on_ladders=False)
