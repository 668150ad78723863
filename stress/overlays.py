"""What comes on top of a shock for a while: at one venue, in some books, or in one token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from stress.spec import Many, NonNegative, Number, Positive, Spec
from stress.venues import Venue


class Event(Spec):
    """Something that happens in a run."""

    start_minutes: NonNegative
    """When it begins, from the start of the run [min]."""
    source: str = ""


class Episode(Event):
    """Something that lasts for a while."""

    minutes: Positive
    """How long it lasts [min]."""

    def during(self, step_seconds: float, steps: int) -> NDArray[np.bool_]:
        """Which steps are in it, shape (steps): those whose end t is, start < t <= start + minutes.

        Args:
            step_seconds: Length of a step [s].
            steps: How many there are.
        """
        end = np.arange(1, steps + 1) * step_seconds
        start, stop = self.start_minutes * 60, (self.start_minutes + self.minutes) * 60
        return (end > start) & (end <= stop)


class Depeg(Episode):
    """A token trades below its index at one venue.

    It moves what coins of the token are worth there as collateral, and the price at which they are sold there; never a
    mark, and nothing at another venue.
    """

    kind: Literal["depeg"]
    token: str
    """An asset of the run that the venue takes as collateral."""
    venue: str
    """Where."""
    share: Annotated[Number, Field(gt=0, lt=1)]
    """By which share its price there is below its index [1]."""


class DepthCollapse(Episode):
    """Market makers withdraw: books take a flow as if it were so many times as large.

    It multiplies the depth divisor of a fast market, also where that is switched off, in the perpetuals and the spot
    market of an asset alike. Median of 636 liquidation events on 21 coins at Binance, 2023-01 to 2026-07: 3.4 times;
    90 % are below 17 (single author, unreviewed).
    """

    kind: Literal["depth_collapse"]
    times: Annotated[Number, Field(gt=1)]
    """How many times thinner the books are [1]."""
    assets: Many[str] = ()
    """Those whose books they are; all of the run if absent."""


class Slowdown(Episode):
    """A venue's engine takes in forced orders, and its pool and vault unwind, at a share of their speed.

    Accounts are triggered as ever and wait in the queue. What an engine could not take in is not made up for later.
    """

    kind: Literal["slowdown"]
    venue: str
    """Where."""
    share: Annotated[Number, Field(ge=0, lt=1)]
    """What is left of the speed [1]."""


class StaleIndex(Episode):
    """A venue goes on with the index as it was: its marks follow what is left, its own last price where a rule has it.

    The index itself, other venues, and the venue's own book move on.
    """

    kind: Literal["stale_index"]
    venue: str
    """Where."""


class Outage(Episode):
    """A venue stands still: nothing is closed or unwound there, and its index is stale; a slowdown to nothing and more.

    Funding is paid, and an imbalance decays as ever. Afterwards everything that waits comes at once.
    """

    kind: Literal["outage"]
    venue: str
    """Where."""


class FundingSpike(Episode):
    """A premium that impact does not explain, over which funding is averaged; the venue's cap holds.

    It counts at the venue's next payments: a run that ends before the next one sees nothing of it.
    """

    kind: Literal["funding_spike"]
    premium: Number
    """What comes on top of the premium at every step in it [1]; positive where longs pay."""
    venues: Many[str] = ()
    """All of the run if absent."""
    assets: Many[str] = ()
    """All of the run if absent."""


class Default(Event):
    """A large account that loses money elsewhere, and with it what backs its positions here.

    It joins the accounts on cross margin, with entries at the starting prices, and is liquidated as any other once its
    equity is at its maintenance, before the loss or by it. With a loss close to its equity it stands for a desk that
    fails; for somebody who takes his margin out so that the fund gets a position that the book cannot take, with a
    loss that leaves a little less than maintenance.
    """

    kind: Literal["default"]
    venue: str
    """Where."""
    positions: Annotated[dict[str, Number], Field(min_length=1)]
    """Notional at the starting prices by asset, a short negative [USD]."""
    equity_usd: Positive
    """At the start, all of it cash [USD]."""
    loss_usd: Positive
    """What it loses in the first step that ends after `start_minutes` [USD]; more than its equity leaves a deficit."""


class Support(Spec):
    """A price level at which many have their stop orders: below the start longs who sell, above it shorts who buy.

    They hold their positions from the start, paid in full, so that nobody liquidates them; they count in open interest.
    Once the mark is at a stop it is executed in the order book, as `behaviour.stop_losses` are.
    """

    kind: Literal["support"]
    asset: str
    """Whose price."""
    move: Annotated[Number, Field(gt=-1)]
    """Where the level lies: move of the mark from the start [1]; negative for a support, positive for a resistance."""
    width: Annotated[Number, Field(ge=0, lt=1)] = 0.01
    """Over which the stops are spread evenly, the level in the middle, as a share of the starting price [1]."""
    usd: Positive
    """Notional of the positions at the starting prices, over all venues, by their average daily volumes [USD]."""
    venues: Many[str] = ()
    """Where they are; all of the run that list the asset, and have no vault, if absent."""
    source: str = ""

    @model_validator(mode="after")
    def _on_one_side(self) -> Self:
        low, high = self.move - self.width / 2, self.move + self.width / 2
        if low <= 0 <= high or low <= -1:
            raise ValueError(
                f"move is {self.move:g} with a width of {self.width:g}, expected a level on one side of the start and "
                "above a price of zero. Move it, or make it narrower."
            )
        return self

    def prices(self) -> list[float]:
        """Moves from the start at which equal parts of the stops lie [1]."""
        parts = _PARTS if self.width > 0 else 1
        return [self.move + self.width * ((i + 0.5) / parts - 0.5) for i in range(parts)]

    def listing(self, venues: Mapping[str, Venue]) -> list[str]:
        """Venues of the run where it may be: that list a linear contract, on ladders."""
        linear = (name for name, v in venues.items() if self.asset in v.markets and not v.inverse(self.asset))
        return [name for name in linear if venues[name].vault is None]

    def by_venue(self, venues: Mapping[str, Venue]) -> dict[str, float]:
        """Notional at each venue [USD]."""
        adv = {name: venues[name].markets[self.asset].adv_usd for name in self.venues or self.listing(venues)}
        return {name: self.usd * volume / sum(adv.values()) for name, volume in adv.items()}


_PARTS = 16

Overlay = Annotated[
    Depeg | DepthCollapse | Slowdown | StaleIndex | Outage | FundingSpike | Default | Support,
    Field(discriminator="kind"),
]


_AT_A_VENUE = Depeg | Slowdown | StaleIndex | Outage | Default


def check_overlays(
    overlays: Sequence[Overlay],
    venues: Mapping[str, Venue],
    assets: Sequence[str],
    horizon_hours: int,
    step_seconds: int,
) -> None:
    """`ValueError` unless each names what the run has, and a time of it with a step in it; no two depegs of one token
    at one place at a time, and no two of what else would be said twice."""
    for i, overlay in enumerate(overlays):
        where = f"overlays[{i}]"
        if isinstance(overlay, Support):
            _check_level(overlay, where, venues, assets)
            continue
        places = {"venue": [overlay.venue]} if isinstance(overlay, _AT_A_VENUE) else {}
        if isinstance(overlay, FundingSpike):
            places["venues"] = list(overlay.venues)
        for field, names in places.items():
            for name in names:
                if name not in venues:
                    raise ValueError(
                        f"{where}.{field} is '{name}', expected a venue of the run ({', '.join(venues)}). Correct it."
                    )
        if isinstance(overlay, DepthCollapse | FundingSpike):
            for name in overlay.assets:
                if name not in assets:
                    raise ValueError(
                        f"{where}.assets names '{name}', expected assets of the run ({', '.join(assets)}). Correct it."
                    )
        if isinstance(overlay, Depeg):
            _check_token(overlay, where, venues[overlay.venue], assets)
        if isinstance(overlay, Default):
            _check_positions(overlay, where, venues[overlay.venue], assets)
        if overlay.start_minutes >= horizon_hours * 60:
            raise ValueError(
                f"{where}.start_minutes is {overlay.start_minutes:g} min, expected less than the run's "
                f"{horizon_hours * 60} min. Start it earlier, or lengthen horizon_hours."
            )
        steps = horizon_hours * 3600 // step_seconds
        if isinstance(overlay, Episode) and not overlay.during(step_seconds, steps).any():
            raise ValueError(
                f"{where}.minutes is {overlay.minutes:g} min from {overlay.start_minutes:g} min on, in which no step "
                f"of {step_seconds} s ends, expected at least one. Make it longer, or step_seconds shorter."
            )
    _check_apart(overlays)


def _check_level(overlay: Support, where: str, venues: Mapping[str, Venue], assets: Sequence[str]) -> None:
    if overlay.asset not in assets:
        raise ValueError(
            f"{where}.asset is '{overlay.asset}', expected an asset of the run ({', '.join(assets)}). Correct it."
        )
    there = overlay.listing(venues)
    for name in overlay.venues or ([] if there else ["none"]):
        if name not in there:
            raise ValueError(
                f"{where}.venues is '{name}', expected venues without a vault and with a linear contract on "
                f"'{overlay.asset}' ({', '.join(there) or 'the run has none'}). Correct it."
            )


def _check_token(overlay: Depeg, where: str, venue: Venue, assets: Sequence[str]) -> None:
    if overlay.token not in assets:
        raise ValueError(
            f"{where}.token is '{overlay.token}', expected an asset of the run ({', '.join(assets)}). Correct it, "
            "or add the asset."
        )
    if venue.inverse(overlay.token):
        raise ValueError(
            f"{where}.token is '{overlay.token}', the coin of an inverse contract at '{overlay.venue}', which "
            "counts at that contract's mark, expected another token. Leave the overlay out."
        )
    if not venue.takes(overlay.token):
        raise ValueError(
            f"{where}.token is '{overlay.token}', expected a token that '{overlay.venue}' takes as collateral "
            f"({', '.join(venue.haircuts) or 'it takes USD alone'}). Correct it, or add it to the venue's haircuts."
        )


def _check_positions(overlay: Default, where: str, venue: Venue, assets: Sequence[str]) -> None:
    listed = [asset for asset in assets if asset in venue.markets and not venue.inverse(asset)]
    for asset in overlay.positions:
        if asset not in listed:
            raise ValueError(
                f"{where}.positions names '{asset}', expected a linear market of '{overlay.venue}' in an asset of the "
                f"run ({', '.join(listed) or 'it has none'}). Correct it."
            )


def _check_apart(overlays: Sequence[Overlay]) -> None:
    timed = [(i, overlay) for i, overlay in enumerate(overlays) if isinstance(overlay, Event)]
    for (i, one), (j, other) in combinations(timed, 2):
        first, second = sorted((one, other), key=lambda overlay: overlay.start_minutes)
        if _subject(one) is None or _subject(one) != _subject(other):
            continue
        assert isinstance(first, Episode)
        if second.start_minutes < first.start_minutes + first.minutes:
            raise ValueError(
                f"overlays[{j}] overlaps overlays[{i}], also of {_subject(one)}, expected one at a time. Move or "
                "shorten one of them."
            )


def _subject(overlay: Event) -> str | None:
    """What only one overlay may speak of at a time; others add up or multiply."""
    if isinstance(overlay, Depeg):
        return f"'{overlay.token}' at '{overlay.venue}'"
    return f"the engine of '{overlay.venue}'" if isinstance(overlay, Slowdown | Outage) else None
