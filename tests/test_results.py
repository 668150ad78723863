"""The table of variables, and a plausible synthetic run that other tests share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import xarray as xr

from stress import results
from stress.results import COMPLETE, by_path, coords, dataset, in_memory, labels, open_run
from stress.spec import InputError
from stress.variables import COORDINATES, LAYERS, VARIABLES, WITH_VAULT

VENUES = ("binance", "bybit", "okx")
ASSETS = ("BTC", "ETH", "SOL", "XRP", "DOGE")
POOLS = ("binance/main", "bybit/main", "okx/main")
VENUE_SHARES = np.array([0.5, 0.3, 0.2])
ASSET_SHARES = np.array([0.52, 0.28, 0.11, 0.06, 0.03])
FUNDS_USD = np.array([1.2e9, 0.4e9, 0.3e9])


def empty(paths: int, hours: int) -> dict[str, np.ndarray]:
    """Zeros of every declared variable, and the labels' sizes."""
    sizes = {name: len(values) for name, values in labels(paths, hours, VENUES, ASSETS, POOLS).items()}
    return {name: np.zeros([sizes[d] for d in v.dims], v.dtype) for name, v in VARIABLES.items()}


def synthetic(paths: int = 512, hours: int = 24, seed: int = 7, jump_chance: float = 0.22) -> xr.Dataset:
    """A plausible random run: lognormal calm hours, and a heavy-tailed jump hour on some paths."""
    rng = np.random.default_rng(seed)
    arrays = empty(paths, hours)
    volume = rng.lognormal(np.log(3e6), 1.4, (paths, hours))
    jumped, when = rng.random(paths) < jump_chance, rng.integers(0, hours, paths)
    shock = np.where(jumped, rng.lognormal(np.log(8e7), 1.5, paths), 0.0).clip(max=9e9)
    volume[np.arange(paths), when] += shock
    long_share = np.where(rng.random((paths, hours)) < 0.6, 0.8, 0.4)
    market = volume[..., None, None] * VENUE_SHARES[:, None] * ASSET_SHARES
    sides = np.stack([long_share, 1 - long_share], -1)
    arrays["liquidation_volume"][:] = market[..., None] * sides[:, :, None, None, :]
    stress = (volume / 2e9).clip(max=1)[..., None, None]
    shares = [1 - stress, 0.02 * stress, 0.6 * stress, 0.38 * stress]
    shares[0] = 1 - sum(shares[1:])
    for layer, share in enumerate(shares):
        arrays["absorbed_volume"][..., layer] = market * share
    arrays["adl_volume"][:] = arrays["absorbed_volume"][..., LAYERS.index("adl")]
    losses = (volume[..., None] * VENUE_SHARES * 0.08) * (volume[..., None] > 3e8)
    receipts = volume[..., None] * VENUE_SHARES * 0.003
    arrays["deficit"][:], arrays["surplus"][:] = losses, receipts
    equity = FUNDS_USD + np.cumsum(receipts - losses, axis=1)
    arrays["socialised_loss"][:] = np.maximum(-equity, 0)
    arrays["fund_equity"][:], arrays["fund_low"][:] = equity, equity - 0.2 * losses
    peak = np.maximum.accumulate(np.maximum(equity, FUNDS_USD), axis=1)
    arrays["fund_drawdown"][:] = (peak - arrays["fund_low"]).max(axis=1)
    gone = equity <= 0
    arrays["fund_exhausted_hour"][:] = np.where(gone.any(axis=1), gone.argmax(axis=1), np.nan)
    arrays["open_interest"][:] = 60e9 * VENUE_SHARES[:, None] * ASSET_SHARES
    arrays["index_close"][:] = arrays["index_low"][:] = arrays["index_high"][:] = 1
    for name in arrays:
        if name.startswith("adl_top"):
            arrays[name][:] = np.nan
    attrs = {"name": "synthetic", COMPLETE: True}
    return dataset(arrays, labels(paths, hours, VENUES, ASSETS, POOLS), attrs)


def backstopped() -> xr.Dataset:
    """Ten paths of three hours at three venues: okx has no fund but a vault, DOGE no market; ADL at bybit and okx."""
    ds = synthetic(paths=10, hours=3)
    nothing = np.zeros((10, 3, 3))
    taken = np.insert(ds["absorbed_volume"].values, WITH_VAULT.index("vault"), 0, axis=-1)
    taken[:, :, 2, :, WITH_VAULT.index("vault")] = 1e6
    for name in ("liquidation_volume", "open_interest"):
        ds[name].loc[{"asset": "DOGE"}] = 0
    profit, equity, haircut = nothing * np.nan, nothing * np.nan, nothing.copy()
    profit[:, 1, 2] = np.linspace(-8e6, 1e6, 10)
    profit[:, [0, 2], 2] = 0
    equity[:, :, 2] = 6.5e6 + np.cumsum(profit[:, :, 2], axis=1)
    haircut[6:, 0, 1], haircut[6:, 2, 1], haircut[:, 1, 2] = 1e6, 3e6, 2e6
    asset = ds["asset"].values == "BTC"
    sold = np.zeros(ds["collateral_sold"].shape)
    sold[:, 1, 0, 4], sold[:, 1, 0, 1] = 3e6, np.arange(10) / 4.5 * 1e6
    top = np.where(haircut > 0, haircut / 1e7, np.nan)
    made = {
        "absorbed_volume": (("path", "hour", "venue", "asset", "layer"), taken),
        "vault_profit": (("path", "hour", "venue"), profit),
        "vault_equity": (("path", "hour", "venue"), equity),
        "adl_volume": (("path", "hour", "venue", "asset"), 10 * haircut[..., None] * asset),
        "adl_haircut": (("path", "hour", "venue", "asset"), haircut[..., None] * asset),
        "adl_overshoot": (("path", "hour", "venue", "asset"), -haircut[..., None] * asset / 2),
        "adl_open_interest": (("path", "hour", "venue", "asset"), haircut[..., None] * asset / 2e7),
        "adl_top_share": (("path", "hour", "venue"), top / 2),
        "adl_top_10_share": (("path", "hour", "venue"), top),
        "adl_top_keeps_of_total": (("path", "hour", "venue"), np.where(np.arange(3) == 1, np.nan, 3 * top)),
        "adl_top_keeps_of_largest": (("path", "hour", "venue"), np.where(np.arange(3) == 1, np.nan, 60 * top)),
        "collateral_sold": (("path", "hour", "venue", "asset"), sold),
    }
    ds = ds.drop_dims("layer").assign_coords(layer=list(WITH_VAULT)).assign(made)
    ds["fund_low"][..., 2] = ds["fund_equity"][..., 2] = 2 * np.sin(np.arange(3))  # rounding
    ds["fund_drawdown"][:, 2], ds["fund_exhausted_hour"][:, 2] = 3, 0
    ds["deficit"][..., 2] = ds["socialised_loss"][..., 2] = 1e8
    return ds


def test_table_declares_known_dims_in_one_order() -> None:
    order = list(COORDINATES)
    for name, variable in VARIABLES.items():
        assert variable.name == name
        assert variable.dims[0] == "path"
        assert list(variable.dims) == sorted(variable.dims, key=order.index)
        assert variable.long_name and variable.units
        assert np.dtype(variable.dtype).kind in "fi"


def test_money_held_over_hours_is_double() -> None:
    assert {VARIABLES[n].dtype for n in ("fund_equity", "fund_low", "fund_drawdown", "log_weight")} == {"float64"}


def test_coords_come_from_the_names_of_the_run() -> None:
    pools = [SimpleNamespace(name="main"), SimpleNamespace(name="alts")]
    venues = {"binance": SimpleNamespace(pools=pools, vault=None), "okx": SimpleNamespace(pools=pools[:1], vault=None)}
    run = SimpleNamespace(paths=3, horizon_hours=2, venues=venues, assets={"BTC": None, "ETH": None}, recovery_days=0)
    made = coords(cast(Any, run))
    assert list(made["pool"]) == ["binance/main", "binance/alts", "okx/main"]
    assert list(made["venue"]) == ["binance", "okx"]
    assert list(made["asset"]) == ["BTC", "ETH"]
    assert list(made["hour"]) == [0, 1]
    assert list(made["path"]) == [0, 1, 2]
    assert list(made["side"]) == ["long", "short"]


def test_dataset_carries_labels_units_and_dtypes() -> None:
    made = synthetic(paths=4, hours=3)
    assert set(made.data_vars) == set(VARIABLES)
    for name, variable in VARIABLES.items():
        assert made[name].dims == variable.dims
        assert made[name].dtype == variable.dtype
        assert made[name].attrs["units"] == variable.units
    volume = made["liquidation_volume"].astype(float).sum()
    assert float(made["absorbed_volume"].astype(float).sum()) == pytest.approx(float(volume), rel=1e-5)
    assert made["liquidation_volume"].sel(side="long", venue="okx", asset="ETH").shape == (4, 3)


def test_dataset_refuses_what_is_not_declared() -> None:
    axes = labels(2, 3, VENUES, ASSETS, POOLS)
    with pytest.raises(ValueError, match=r"liquidation_volumes.*not a declared variable"):
        dataset({"liquidation_volumes": np.zeros((2, 3))}, axes)
    with pytest.raises(ValueError, match=r"status has shape \(3,\), expected \(2,\)"):
        dataset({"status": np.zeros(3)}, axes)
    with pytest.raises(ValueError, match="fund_equity has shape"):
        dataset({"fund_equity": np.zeros((3, 2, 3))}, axes)


def test_open_run_refuses_what_is_no_run(tmp_path) -> None:
    with pytest.raises(InputError, match=r"none\.zarr: holds no run"):
        open_run(tmp_path / "none.zarr")
    synthetic(2, 2).drop_attrs().to_zarr(tmp_path / "other.zarr", consolidated=False)
    with pytest.raises(InputError, match=r"other\.zarr: is a zarr store but not a run"):
        open_run(tmp_path / "other.zarr")


def test_what_is_read_once_is_what_is_in_the_store(tmp_path, monkeypatch) -> None:
    written = synthetic(paths=6, hours=2)
    written.to_zarr(tmp_path / "run.zarr", consolidated=False, zarr_format=3)
    opened = xr.open_zarr(tmp_path / "run.zarr", consolidated=False, chunks=None)
    once = in_memory(opened, "liquidation_volume", "not_kept")
    expected = by_path(written, "liquidation_volume", "hour")
    (tmp_path / "run.zarr").rename(tmp_path / "away.zarr")
    np.testing.assert_array_equal(by_path(once, "liquidation_volume", "hour"), expected)
    monkeypatch.setattr(results, "_LARGE", opened["liquidation_volume"].nbytes - 1)
    assert in_memory(opened, "liquidation_volume") is opened
