"""Shocks: what drives the index prices from outside, as data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from stress.diffusions import Bates, Gbm, Kou, Merton, StudentT
from stress.recorded import BlockBootstrap, Garch, Replay
from stress.spec import Fraction, Many, NonNegative, Number, Spec, read_toml, validate

Array = NDArray[np.float64]


class Prescribed(Spec):
    """A path given by points, log-linear between them, the same on every simulated path but for the jitter."""

    kind: Literal["prescribed"]
    minutes: Many[NonNegative]
    """Times of the points [min], ascending; 0 and a move of 0 are implied at the start."""
    moves: dict[str, Many[Annotated[Number, Field(gt=-1)]]]
    """Index against its start at those times, by asset: -0.2 is 20 % down [1]."""
    beta: dict[str, Number] = {}
    """Log-return of assets not in `moves`, per log-return of `beta_of` [1]."""
    beta_of: str = "BTC"
    """The asset of `moves` that others follow."""
    jitter_size: Fraction = 0.0
    """Each path scales all log-moves by exp(N(0, jitter_size)) [1]."""
    jitter_minutes: NonNegative = 0.0
    """Each path shifts all points later by U(0, jitter_minutes) [min]."""
    noise: Gbm | None = None
    """A diffusion on top."""
    source: str = ""

    def assets(self) -> list[str]:
        """Assets it moves."""
        noise = set(self.noise.daily_volatility) if self.noise else None
        moved = [*self.moves, *(asset for asset in self.beta if asset not in self.moves)]
        return [asset for asset in moved if noise is None or asset in noise]

    def diffusion(self, asset: str) -> float:
        """Daily volatility of the diffusion [1]."""
        return self.noise.daily_volatility[asset] if self.noise else 0.0

    def log_path(self, asset: str, minutes: Array) -> Array:
        """Log index at given times, without jitter and noise; level after the last point."""
        beta = 1.0 if asset in self.moves else self.beta[asset]
        points = self.moves[asset if asset in self.moves else self.beta_of]
        known = np.concatenate([[0.0], self.minutes]) if self.minutes[:1] != (0.0,) else np.array(self.minutes)
        logs = np.log1p(np.array(points))
        return beta * np.interp(minutes, known, np.concatenate([[0.0], logs]) if len(known) > len(logs) else logs)

    @model_validator(mode="after")
    def _points(self) -> Self:
        if any(late <= early for early, late in zip(self.minutes, self.minutes[1:], strict=False)):
            raise ValueError(f"minutes is {list(self.minutes)}, expected ascending times. Sort the points.")
        if self.beta and self.beta_of not in self.moves:
            raise ValueError(f"beta_of is '{self.beta_of}', expected an asset of moves. Correct it.")
        for asset, moves in self.moves.items():
            if len(moves) != len(self.minutes):
                raise ValueError(
                    f"moves.{asset} has {len(moves)} values, expected {len(self.minutes)}, one for each of minutes. "
                    "Add or remove some."
                )
        return self


Shock = Annotated[
    Gbm | Merton | Kou | Bates | StudentT | Garch | BlockBootstrap | Replay | Prescribed, Field(discriminator="kind")
]


class _Any(Spec):
    """Holds any shock, so that it is checked as in a run."""

    shock: Shock


def read_shock(path: Path) -> Shock:
    """The shock in a TOML file; `InputError` where something is wrong."""
    return validate(_Any, {"shock": read_toml(path)}, str(path)).shock
