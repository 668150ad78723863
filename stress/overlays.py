"""What comes on top of a shock at one venue only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stress.spec import NonNegative, Number, Positive, Spec
from stress.venues import Venue


class Depeg(Spec):
    """A token trades below its index at one venue for a while.

    It moves what coins of the token are worth there as collateral, and the price at which they are sold there; never a
    mark, and nothing at another venue.
    """

    kind: Literal["depeg"]
    token: str
    """An asset of the run that the venue takes as collateral."""
    venue: str
    share: Annotated[Number, Field(gt=0, lt=1)]
    """By which share its price there is below its index [1]."""
    start_minutes: NonNegative
    """When it begins, from the start of the run [min]."""
    minutes: Positive
    """How long it lasts [min]."""
    source: str = ""

    def log_deviation(self, step_seconds: float, steps: int) -> NDArray[np.float64]:
        """Log of the token's price there over its index, in each step, shape (steps).

        It is log(1 - share) in every step whose end t lies in it, start < t <= start + minutes, and 0 in the others: a
        step is priced at its end.

        Args:
            step_seconds: Length of a step [s].
            steps: How many there are.
        """
        end = np.arange(1, steps + 1) * step_seconds
        start, stop = self.start_minutes * 60, (self.start_minutes + self.minutes) * 60
        return np.where((end > start) & (end <= stop), np.log1p(-self.share), 0.0)


Overlay = Depeg
"""Any of the overlays; a union on `kind` once there are several."""


def check_overlays(
    overlays: Sequence[Overlay], venues: Mapping[str, Venue], assets: Sequence[str], horizon_hours: int
) -> None:
    """`ValueError` unless each names a venue, a token that it takes, and a time of the run that no other claims."""
    for i, overlay in enumerate(overlays):
        where = f"overlays[{i}]"
        if overlay.venue not in venues:
            raise ValueError(
                f"{where}.venue is '{overlay.venue}', expected a venue of the run ({', '.join(venues)}). Correct it."
            )
        if overlay.token not in assets:
            raise ValueError(
                f"{where}.token is '{overlay.token}', expected an asset of the run ({', '.join(assets)}). Correct it, "
                "or add the asset."
            )
        venue = venues[overlay.venue]
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
        if overlay.start_minutes >= horizon_hours * 60:
            raise ValueError(
                f"{where}.start_minutes is {overlay.start_minutes:g} min, expected less than the run's "
                f"{horizon_hours * 60} min. Start it earlier, or lengthen horizon_hours."
            )
    for (i, one), (j, other) in combinations(enumerate(overlays), 2):
        first, second = sorted((one, other), key=lambda overlay: overlay.start_minutes)
        same = (one.token, one.venue) == (other.token, other.venue)
        if same and second.start_minutes < first.start_minutes + first.minutes:
            raise ValueError(
                f"overlays[{j}] overlaps overlays[{i}], also of '{one.token}' at '{one.venue}', expected one at a "
                "time. Move or shorten one of them."
            )
