"""A policy: how rules differ from a run's, in a file of its own, so that many are compared on one base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from stress.merge import EVERY, merged, scaled
from stress.spec import Fraction, InputError, Spec, read_toml, validate

NAME = r"^[A-Za-z0-9._-]+$"
POLICIES = "policies"
"""Attribute of a store: what the policies put over its run say of themselves, `Policy.said`; of a suite, by cell's
policy. No part of the config or of its hash."""
OF_PORTFOLIO = ("leverage_cap",)
"""What a policy may change in a portfolio."""


class Policy(Spec):
    """Changes to the rules of a run. Seed, shock, prices, assets and positions are the base's: they cannot differ."""

    name: Annotated[str, Field(pattern=NAME)]
    """What is put after the run's name."""
    description: str = ""
    """For people; nothing depends on it."""
    source: str
    """Where the rule comes from, and when."""
    change: dict[str, Any] = {}
    """Values put over the run's config, in its own tables: `venues.NAME...`, `behaviour`, or
    `portfolio.leverage_cap`. The key `*` stands for every venue, market or fund."""
    scale: dict[str, Any] = {}
    """Factors on numbers of the run's config, in its own tables."""
    subpools: dict[str, Fraction] = {}
    """At every venue, markets that get an insurance fund of their own, and the share of the money of the fund behind
    them that goes there [1]."""

    @model_validator(mode="after")
    def _shares_a_base(self) -> Self:
        for name, table in (("change", self.change), ("scale", self.scale)):
            portfolio = table.get("portfolio", {})
            odd = [key for key in table if key not in ("venues", "portfolio", "behaviour")]
            odd += [f"portfolio.{key}" for key in portfolio if key not in OF_PORTFOLIO]
            if odd:
                raise ValueError(
                    f"{name}.{odd[0]} is part of the base that policies share, expected venues, "
                    f"behaviour or portfolio.{OF_PORTFOLIO[0]}. Put it into the run, or into a scenario of a suite."
                )
        return self

    @property
    def said(self) -> dict[str, str]:
        """Its name, what it is, and where it comes from, as kept in a store."""
        return {"name": self.name, "description": self.description, "source": self.source}

    def applied(self, data: dict[str, Any]) -> dict[str, Any]:
        """The table of a run under this policy.

        Args:
            data: The run's, files that it includes read.

        Raises:
            InputError: It names a venue that the run does not have, or a number that is not there.
        """
        here = f"policy '{self.name}'"
        venues = data.get("venues", {})
        for table, name in ((self.change, "change"), (self.scale, "scale")):
            for venue in table.get("venues", {}):
                if venue != EVERY and venue not in venues:
                    raise InputError(
                        f"{here}: {name}.venues names {venue!r}, expected a venue of the run ({', '.join(venues)}) or "
                        "'*' for all of them. Correct it."
                    )
        data = scaled(merged(data, self.change, f"{here}: change"), self.scale, f"{here}: scale")
        if not self.subpools:
            return data
        split = {name: {**venue, "pools": self._split(name, venue)} for name, venue in data["venues"].items()}
        return {**data, "venues": split}

    def _split(self, venue: str, spec: dict[str, Any]) -> list[dict[str, Any]]:
        """The funds of a venue, some of their money in funds of their own."""
        pools = []
        for pool in spec["pools"]:
            behind = list(spec["markets"]) if pool.get("markets", "all") == "all" else list(pool["markets"])
            own = {asset: self.subpools[asset] for asset in behind if asset in self.subpools}
            rest, others = 1 - sum(own.values()), [asset for asset in behind if asset not in own]
            if rest < -1e-9 or (not others and rest > 1e-9):
                raise InputError(
                    f"policy '{self.name}': subpools of fund '{pool['name']}' at '{venue}' sum to {1 - rest:g}, "
                    f"expected {'at most 1' if others else '1, as no market is left to it'}. Change the shares."
                )
            if others:
                pools.append({**pool, "markets": others, "equity_usd": pool["equity_usd"] * max(rest, 0.0)})
            for asset, share in own.items():
                name = f"{pool['name']}-{asset}"
                pools.append({**pool, "name": name, "markets": [asset], "equity_usd": pool["equity_usd"] * share})
        return pools


def read_policy(path: str | Path) -> Policy:
    """The policy in a TOML file; `InputError` where it is wrong."""
    return validate(Policy, read_toml(Path(path)), str(path))
