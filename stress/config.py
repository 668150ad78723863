"""A run: which venues, whose positions, what shock, how long and how fine."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from stress.behaviour import Behaviour
from stress.diffusions import Kou, WithNormalJumps, check_jumps
from stress.leverage import LeverageCap
from stress.maintenance import Array
from stress.merge import merged
from stress.overlays import Overlay, check_overlays
from stress.policies import Policy
from stress.population import Population
from stress.portfolio import Terms
from stress.recorded import BlockBootstrap, Recorded, Replay
from stress.sampling import Sampling, check_sampling
from stress.scenarios import Shock
from stress.spec import BLOCK, Fraction, InputError, Many, NonNegative, Number, Positive, Spec, read_toml, validate
from stress.variables import Names, check_kept
from stress.venues import Venue


class Asset(Spec):
    """An underlying with an index price."""

    daily_volatility: Positive
    """Total daily volatility, jumps included: scales impact, depth and the age of entries [1]."""
    spot_adv_usd: Positive | None = None
    """Average daily volume of its spot market, of an asset on which no venue of the run lists a perpetual, such as a
    stablecoin that is only collateral, and of no other: scales the impact of its sale [USD]."""
    source: str = ""


class Impact(Spec):
    """How forced orders move prices."""

    i_ref: NonNegative = 0.01
    """What a flow of 1 % of a day's volume does to an asset of 2.5 % daily volatility [1]; 0 switches impact off."""
    delta: Annotated[Number, Field(ge=0.3, le=1)] = 0.7
    """Exponent of impact [1]."""
    rho: Fraction = 0.4
    """Share of the push that reaches the index [1]."""
    contagion: NonNegative = 0.0
    """Share of one asset's index push that reaches each other asset [1]."""
    half_life_local_seconds: Positive = 600.0
    """Time in which half of a market's imbalance is gone [s]; its push fades by half in that over delta."""
    half_life_global_seconds: Positive = 1800.0
    """The same of an asset's imbalance over all venues [s]."""
    depth: bool = True
    """Depth withdraws when the exogenous 5-minute return is large."""
    source: str = ""


class Prices(Spec):
    """Starting prices, or files to read them from."""

    start: dict[str, Positive] = {}
    """Index price of each asset at the start [USD]; a replay takes its first price instead."""
    dir: str | None = None
    """Folder of the price files."""
    files: dict[str, str] = {}
    """File of an asset, where its name alone does not decide."""


class Portfolio(Spec):
    """Whose positions: a file, or a synthetic population."""

    positions: str | None = None
    """CSV or Parquet file of positions."""
    collateral: str | None = None
    """CSV or Parquet file of the collateral of accounts on cross margin."""
    population: Population | None = None
    """A synthetic population."""
    block_usd: NonNegative = 0.0
    """Hedgers who never trade, one-sided, spread like the accounts' longs; counts towards open interest only [USD]."""

    leverage_cap: LeverageCap | None = None
    """On the leverage of accounts at the start; none where absent."""
    concentration: Annotated[Number, Field(ge=0, lt=1, exclude_if=lambda share: share == 0)] = 0.0
    """Share of the longs of every market that one account holds, with as much margin as those had [1]."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.positions is None) == (self.population is None):
            raise ValueError("expected either positions or population. Give exactly one of the two.")
        if self.collateral is not None and self.positions is None:
            raise ValueError(
                f"collateral is {self.collateral!r}, expected none beside a population: it is that of accounts in a "
                "file of positions. Leave it out, or give positions instead of the population."
            )
        return self


class Ladder(Spec):
    """Size of the trigger tables."""

    rungs: Annotated[int, Field(ge=64, le=65536)] = 4096
    """Rungs per market, side and entry class."""
    entry_classes: Annotated[int, Field(ge=1, le=8)] = 1
    """Classes by entry price: who is in profit in deleveraging and socialisation."""


def _chunk_of(given: dict[str, Any]) -> int:
    """As many paths as have a day's numbers of 1024, for shorter ones up to 8 times as many."""
    times = max(1, 24 // given.get("horizon_hours", 24))
    return BLOCK * min(8, 1 << times.bit_length() - 1)


class Run(Spec):
    """Everything that decides what a run computes."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    """What the store and the picture are called."""
    description: str = ""
    """For people; nothing depends on it."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    """Of all random draws of paths; path i is the same for any number of them."""
    paths: Annotated[int, Field(ge=1)] = 4096
    """How many are simulated."""
    horizon_hours: Annotated[int, Field(ge=1, le=336)] = 24
    """Length of a path [h]."""
    step_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    """Length of a step, a divisor of an hour [s]."""
    rounds: Annotated[int, Field(ge=1, le=100)] = 5
    """Cascade rounds in a step."""
    barrier_correction: bool = True
    """Move triggers by 0.5826 sigma sqrt(dt) for what a path does between its steps."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of the simulation; money is summed with its rounding errors carried along in either."""
    chunk: Annotated[int, Field(ge=16, le=65536, default_factory=_chunk_of)]
    """Paths between two writes, the size of a shard of the store: at most 1024, or a multiple of it. By default 1024
    where a path has a day or more, and up to 8192 of shorter ones, as every write has its price. With many accounts on
    cross margin fewer paths are simulated together, and a chunk below 1024 is a multiple of those."""
    venues: Annotated[dict[str, Venue], Field(min_length=1)]
    """Exchanges by name, and the rules by which they liquidate."""
    assets: Annotated[dict[str, Asset], Field(min_length=1)]
    """Underlyings by name; a token that is only collateral is one too."""
    impact: Impact = Impact()
    """Size, shape and decay of what forced orders do to prices."""
    prices: Prices = Prices()
    """Where prices start, and files of recorded ones."""
    portfolio: Portfolio
    """Whose positions are liquidated."""
    shock: Shock
    """What moves the index prices from outside."""
    overlays: Many[Overlay] = ()
    """On top of the shock, at one venue each."""
    ladder: Ladder = Ladder()
    """Size of the tables of accounts with one position."""
    behaviour: Annotated[Behaviour | None, Field(exclude_if=lambda behaviour: behaviour is None)] = None
    """What holders of positions do by themselves; nothing where absent."""
    keep: Annotated[Names, Field(exclude_if=lambda names: not names)] = ()
    """Variables that the store keeps, beside `status` and `log_weight`; all of them where absent."""
    sampling: Annotated[Sampling | None, Field(exclude_if=lambda sampling: sampling is None)] = None
    """How paths are drawn where not one by one from the shock; absent from a stored config then."""
    _policies: tuple[Policy, ...] = PrivateAttr(())

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.chunk > BLOCK and self.chunk % BLOCK:
            raise ValueError(
                f"chunk is {self.chunk} paths, expected at most {BLOCK} or a multiple of it. Choose {BLOCK}."
            )
        if 3600 % self.step_seconds:
            raise ValueError(
                f"step_seconds is {self.step_seconds} s, expected a divisor of an hour (3600 s). "
                "Choose 10, 20, 30 or 60."
            )
        for key, venue in self.venues.items():
            if key != venue.name:
                raise ValueError(f"venues.{key} has the name '{venue.name}', expected '{key}'. Rename one.")
            if not set(venue.markets) & set(self.assets):
                raise ValueError(
                    f"venues.{key} lists {', '.join(venue.markets)}, expected at least one of the run's assets "
                    f"({', '.join(self.assets)}). Add the asset or leave out the venue."
                )
        if isinstance(self.shock, WithNormalJumps | Kou):
            check_jumps(self.shock)
        covered = set(self.assets) if isinstance(self.shock, Replay | BlockBootstrap) else set(self.shock.assets())
        if missing := [asset for asset in self.assets if asset not in covered]:
            raise ValueError(
                f"shock says nothing about {missing[0]}, expected every asset of the run. Add it to the shock."
            )
        unpriced = [asset for asset in self.assets if asset not in self.prices.start]
        if unpriced and not isinstance(self.shock, Replay):
            raise ValueError(
                f"prices.start.{unpriced[0]} is missing, a starting price in USD was expected. "
                "Add it, or replay price files."
            )
        if isinstance(self.shock, Recorded) and self.prices.dir is None:
            raise ValueError(
                "prices.dir is missing, the folder of the price files was expected. Add it, or give --prices DIR."
            )
        self._check_contracts()
        if self.behaviour is not None:
            self.behaviour.check(self.step_seconds, self.shock, list(self.assets))
        check_kept(self.keep, self.recovery_days)
        check_overlays(self.overlays, self.venues, list(self.assets), self.horizon_hours, self.step_seconds)
        if self.sampling is not None:
            check_sampling(self.sampling, self.shock, list(self.assets), self.paths, self.chunk)
        return self

    @property
    def recovery_days(self) -> int:
        """Days that follow the last hour."""
        return 0 if self.behaviour is None else self.behaviour.days

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Those put over its file, in order; for its store to name, and no part of the config or of its hash."""
        return self._policies

    def made_by(self, policies: Sequence[Policy]) -> Self:
        """The same run, which says that these policies were put over it."""
        run = self.model_copy()
        run._policies = tuple(policies)
        return run

    def _check_contracts(self) -> None:
        """`ValueError` unless spot volumes are those of assets without a perpetual, and a population's is linear."""
        for name, asset in self.assets.items():
            listing = [venue for venue in self.venues if name in self.markets(venue)]
            if listing and asset.spot_adv_usd is not None:
                raise ValueError(
                    f"assets.{name}.spot_adv_usd is {asset.spot_adv_usd:g} USD, expected none: '{listing[0]}' lists a "
                    "perpetual on it, whose adv_usd counts. Leave it out."
                )
            if not listing and asset.spot_adv_usd is None:
                raise ValueError(
                    f"assets.{name}.spot_adv_usd is missing, the daily volume of its spot market in USD was expected: "
                    "no venue of the run lists it. Add it, or a venue that does."
                )
        inverse = [(venue, asset) for venue in self.venues for asset in self.terms(venue).inverse]
        if self.portfolio.population is not None and inverse:
            venue, asset = inverse[0]
            raise ValueError(
                f"portfolio.population has linear positions only, expected no inverse contract, as "
                f"venues.{venue} lists on {asset}. Give portfolio.positions, or leave out the venue."
            )

    def markets(self, venue: str) -> list[str]:
        """Assets of the run that a venue lists; others of its markets take no part."""
        return [asset for asset in self.assets if asset in self.venues[venue].markets]

    def brackets(self, venue: str, asset: str) -> tuple[Array, Array]:
        """Floors [USD] and marginal rates [1] of maintenance in a market."""
        return self.venues[venue].brackets(asset, self.assets[asset].daily_volatility)

    def terms(self, venue: str) -> Terms:
        """What files of positions and collateral may say at a venue."""
        spec = self.venues[venue]
        return Terms(
            markets=self.markets(venue),
            inverse=[asset for asset in self.assets if spec.inverse(asset)],
            tokens=[asset for asset in self.assets if spec.takes(asset)],
            nets=spec.hedged_legs == "netted",
        )


def load_config(
    path: str | Path,
    *,
    paths: int | None = None,
    seed: int | None = None,
    prices: str | Path | None = None,
    policies: Sequence[Policy] = (),
    overrides: Mapping[str, Any] | None = None,
) -> Run:
    """Read a run from a TOML file.

    Files named in it (venues, population, shock, sampling, positions, prices) are relative to it. A venue, the
    population, the shock and the sampling may be the name of a file, or a table with `file` and what differs from it.

    Args:
        path: The TOML file.
        paths: Number of paths instead of the file's.
        seed: Seed instead of the file's.
        prices: Folder of price files instead of the file's, relative to the working directory.
        policies: Put over the file one after another; the run's name ends in theirs.
        overrides: Values by dotted key, such as `{"impact.rho": 0.3}`, put over everything else; files among them
            are relative to the working directory.

    Raises:
        InputError: Something is wrong; one line per problem.
    """
    given = {"paths": paths, "seed": seed, "prices.dir": None if prices is None else str(prices)}
    given = {key: value for key, value in given.items() if value is not None} | dict(overrides or {})
    return configured(read_run(path), str(path), policies, given)


def read_run(path: str | Path) -> dict[str, Any]:
    """The table in a run's TOML file, with those of the files that it names."""
    path = Path(path)
    return with_files(read_toml(path), path.parent, str(path))


def with_files(data: dict[str, Any], base: Path, origin: str) -> dict[str, Any]:
    """A table of a run, or a part of one, with those of the files that it names.

    Args:
        data: The table.
        base: Folder that names of files are relative to.
        origin: What the table is, for messages.
    """
    data = dict(data)
    if isinstance(data.get("venues"), dict):
        venues = data["venues"].items()
        data["venues"] = {name: _included(value, base, f"{origin}: venues.{name}") for name, value in venues}
    for key in ("shock", "sampling"):
        if key in data:
            data[key] = _included(data[key], base, f"{origin}: {key}")
    if isinstance(data.get("portfolio"), dict):
        portfolio = data["portfolio"] = dict(data["portfolio"])
        if "population" in portfolio:
            portfolio["population"] = _included(portfolio["population"], base, f"{origin}: portfolio.population")
        for key in ("positions", "collateral"):
            if isinstance(portfolio.get(key), str):
                portfolio[key] = str(base / portfolio[key])
    if isinstance(data.get("prices"), dict) and isinstance(data["prices"].get("dir"), str):
        data["prices"] = {**data["prices"], "dir": str(base / data["prices"]["dir"])}
    return data


def configured(
    data: dict[str, Any], origin: str, policies: Sequence[Policy] = (), given: Mapping[str, Any] | None = None
) -> Run:
    """The run that a table of `read_run` means under policies, with values by dotted key put over it."""
    for policy in policies:
        data = policy.applied(data)
        data["name"] = f"{data.get('name', '')}-{policy.name}"
    data = copy.deepcopy(data)
    for key, value in (given or {}).items():
        _put(data, key, _included(value, Path(), key) if _FROM_FILE.fullmatch(key) else value, origin)
    return validate(Run, data, origin).made_by(policies)


_FROM_FILE = re.compile(r"shock|sampling|portfolio\.population|venues\.[^.]+")
"""Keys whose table may stand in a file of its own."""


def parse_override(text: str) -> tuple[str, Any]:
    """`a.b=value`, the value as in TOML; a bare word is text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {text!r}: expected KEY=VALUE, such as impact.rho=0.3. Write it so.")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def _included(value: Any, base: Path, where: str) -> Any:
    """The table that a file name stands for, with what differs from it put over it."""
    if isinstance(value, str):
        return read_toml(base / value)
    if isinstance(value, dict) and "file" in value:
        if not isinstance(value["file"], str):
            raise InputError(f"{where}.file is {value['file']!r}, expected the name of a TOML file. Give one.")
        return merged(read_toml(base / value["file"]), {k: v for k, v in value.items() if k != "file"})
    return value


def _put(data: dict[str, Any], key: str, value: Any, origin: str) -> None:
    *tables, last = key.split(".")
    for table in tables:
        data = data.setdefault(table, {})
        if not isinstance(data, dict):
            raise InputError(f"{origin}: {key} cannot be set, {table} is not a table. Set a key that exists.")
    data[last] = value
