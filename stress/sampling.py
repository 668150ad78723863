"""How paths are drawn, where not one by one from the shock: for rare events, or for means of smooth quantities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from stress.diffusions import Bates, Diffusion, ExponentialJumps, Gbm, Kou, Merton, NormalJumps
from stress.scenarios import Prescribed, Shock
from stress.spec import BLOCK, Many, Number, Positive, Spec

LEAST_NOMINAL = 0.01
"""Smallest share of paths that is drawn from the shock itself: no path weighs more than one over it [1]."""


class Tilt(Spec):
    """A law under which the event is less rare: where it differs from the shock."""

    share: Annotated[Positive, Field(lt=1)]
    """Of the paths [1]."""
    common: NormalJumps | ExponentialJumps | None = None
    """Common jumps, in the place of the shock's; minutes and betas stay."""
    own: dict[str, NormalJumps | ExponentialJumps] = Field(default={})
    """Own jumps by asset, in the place of the shock's."""
    drift_per_day: dict[str, Number] = Field(default={})
    """Of the diffusion's logs, by asset [1/day]."""


class Importance(Spec):
    """A mixture of the shock and of tilted ones; paths carry likelihood ratios (`log_weight`)."""

    kind: Literal["importance"]
    tilts: Annotated[Many[Tilt], Field(min_length=1)]
    """What their shares leave of 1 is drawn from the shock itself."""
    source: str = ""

    @property
    def nominal(self) -> float:
        """Share of the paths that is drawn from the shock itself [1]."""
        return 1.0 - sum(tilt.share for tilt in self.tilts)

    @model_validator(mode="after")
    def _leaves_a_share(self) -> Self:
        if self.nominal < LEAST_NOMINAL - 1e-9:
            raise ValueError(
                f"tilts have shares that sum to {1 - self.nominal:g}, expected at most {1 - LEAST_NOMINAL:g}: what is "
                "left is drawn from the shock itself, and no path weighs more than one over it. Lower them."
            )
        return self


class Antithetic(Spec):
    """Paths in pairs of mirror images: normals negated, uniforms subtracted from one."""

    kind: Literal["antithetic"]


class Sobol(Spec):
    """Paths in nets of scrambled Sobol points, for the first jump of each source and the diffusion's slow waves."""

    kind: Literal["sobol"]
    points: Annotated[int, Field(ge=16, le=1024)] = 256
    """Paths in a net, a power of two; more spread more evenly, and fewer nets are left to tell the error by."""
    waves: Annotated[int, Field(ge=1, le=64)] = 8
    """Frequencies of the diffusion that come from a net, at most one a step; the others are drawn as ever."""

    @model_validator(mode="after")
    def _power_of_two(self) -> Self:
        if self.points & (self.points - 1):
            raise ValueError(f"points is {self.points}, expected a power of two. Choose 256.")
        return self


Sampling = Annotated[Importance | Antithetic | Sobol, Field(discriminator="kind")]


def group_of(sampling: Importance | Antithetic | Sobol | None) -> int:
    """Consecutive paths that depend on each other."""
    return 2 if isinstance(sampling, Antithetic) else sampling.points if isinstance(sampling, Sobol) else 1


def check_sampling(
    sampling: Importance | Antithetic | Sobol, shock: Shock, assets: Sequence[str], paths: int, chunk: int
) -> None:
    """`ValueError` unless a shock can be drawn so, and paths and chunks are whole groups."""
    can = (Gbm, Merton, Kou, Bates, Prescribed) if isinstance(sampling, Importance) else (Gbm, Merton, Kou)
    if not isinstance(shock, can):
        names = ", ".join(get_args(kind.model_fields["kind"].annotation)[0] for kind in can)
        raise ValueError(
            f"sampling.kind is '{sampling.kind}' with a shock of kind '{shock.kind}', expected a shock among {names}. "
            "Leave sampling out, or choose another shock."
        )
    if isinstance(sampling, Importance):
        for i, tilt in enumerate(sampling.tilts):
            _check_tilt(tilt, f"sampling.tilts[{i}]", shock, assets)
        return
    group = group_of(sampling)
    for name, size in (("paths", paths), ("chunk", min(chunk, BLOCK))):
        if size % group:
            what = "pairs" if group == 2 else f"nets of {group} paths"
            raise ValueError(
                f"{name} is {size}, expected a multiple of {group}, as paths are drawn in {what}. Choose "
                f"{-(-size // group) * group}."
            )


def _check_tilt(tilt: Tilt, where: str, shock: Shock, assets: Sequence[str]) -> None:
    if isinstance(shock, Merton | Bates | Kou):
        for name, jumps in tilt.own.items():
            if name not in shock.own:
                listed = ", ".join(shock.own) or "none"
                raise ValueError(
                    f"{where}.own names {name!r}, expected an asset with jumps of its own in the shock ({listed}). "
                    "Correct it."
                )
            _check_jumps(jumps, shock.own[name], f"{where}.own.{name}")
        if tilt.common is not None:
            _check_jumps(tilt.common, shock.common, f"{where}.common")
    elif tilt.common is not None or tilt.own:
        raise ValueError(
            f"{where} tilts jumps, expected none with a shock of kind '{shock.kind}', which has none. Leave them out."
        )
    diffusion = shock.noise if isinstance(shock, Prescribed) else shock
    if tilt.drift_per_day and (diffusion is None or isinstance(diffusion, Bates)):
        what = "without noise" if diffusion is None else "of kind 'bates', whose variance wanders"
        raise ValueError(f"{where}.drift_per_day is given with a shock {what}, expected none. Leave it out.")
    if isinstance(shock, Prescribed) and diffusion is None:
        raise ValueError(
            "sampling.kind is 'importance' with a prescribed shock without noise, expected something to tilt. Add "
            "shock.noise, or leave sampling out."
        )
    for name in tilt.drift_per_day:
        moved = isinstance(diffusion, Diffusion) and diffusion.daily_volatility.get(name, 0.0) > 0
        if name not in assets or not moved:
            raise ValueError(
                f"{where}.drift_per_day names {name!r}, expected an asset of the run whose daily_volatility in the "
                "shock is above 0. Correct it."
            )


def _check_jumps(tilted: NormalJumps | ExponentialJumps, nominal: NormalJumps | ExponentialJumps, where: str) -> None:
    """`ValueError` unless both have one kind of size and the tilted ones can do what the shock's can, no more."""
    if isinstance(nominal, NormalJumps) != isinstance(tilted, NormalJumps):
        names = "per_day, mean, sd" if isinstance(nominal, NormalJumps) else "per_day, up, mean_up, mean_down"
        raise ValueError(f"{where} has sizes of another law than the shock's jumps, expected {names}. Give these.")
    scales = [("per_day", nominal.per_day, tilted.per_day)]
    if isinstance(nominal, NormalJumps) and isinstance(tilted, NormalJumps):
        scales += [("sd", nominal.sd, tilted.sd)]
        if nominal.sd == 0 and tilted.mean != nominal.mean:
            raise ValueError(
                f"{where}.mean is {tilted.mean:g}, expected {nominal.mean:g} as in the shock, whose sizes do not "
                "differ (sd is 0). Leave it, and raise per_day."
            )
    elif isinstance(nominal, ExponentialJumps) and isinstance(tilted, ExponentialJumps):
        scales += [(name, getattr(nominal, name), getattr(tilted, name)) for name in ("mean_up", "mean_down")]
        if nominal.up in (0, 1) and tilted.up != nominal.up:
            raise ValueError(
                f"{where}.up is {tilted.up:g}, expected {nominal.up:g} as in the shock, whose jumps all go one way. "
                "Correct it."
            )
    for name, ours, theirs in scales:
        if (ours == 0) != (theirs == 0):
            raise ValueError(
                f"{where}.{name} is {theirs:g}, expected {'0' if ours == 0 else 'more than 0'} as in the shock, where "
                f"it is {ours:g}. Correct it."
            )
