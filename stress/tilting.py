"""The tilt under which some paths are likeliest: moments of what they did, by the way in which they did it.

Jumps of a law are an exponential family: the law closest to a set of paths has their mean number of jumps, and the
moments of their sizes; a drift, their mean move. Paths may have got to a place by unlike ways, a common jump down or
one asset's jump up, and no single law is close to both: each way has a tilt of its own. It is told by the jump that
moved a path most, its source and its side; paths without a jump are a way too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import chdtri

from stress.diffusions import Diffusion, ExponentialJumps, Kou, NormalJumps, WithNormalJumps
from stress.results import effective_paths
from stress.sampling import Importance, Tilt
from stress.scenarios import Prescribed

_TILTED = 0.9
"""Share of the paths that is drawn from tilts [1]."""
_LEAST_MASS, _FEWEST, MOST_WAYS = 0.02, 8, 6
"""Of the paths' weight, and number of them, below which a way has no tilt of its own; and the most ways."""
_WORTH = 0.1
"""Least that weights are worth, of the paths that have any [1]."""
MORE_JUMPS = 4.0
"""Most jumps of a source that a tilt adds to a path, in the mean."""
_NARROWEST, _SURE = 0.3, 1e-3
"""Least of the shock's own spread of sizes that a tilt keeps; chance at which what differs is taken for noise [1]."""

Jumps = NormalJumps | ExponentialJumps


@dataclass(frozen=True)
class Did:
    """What the shock did on some paths."""

    happened: np.ndarray
    """Whether a jump began before the end: [source jump path]."""
    sizes: np.ndarray
    """Log sizes [source jump path]."""
    ends: np.ndarray | None
    """Where the diffusion ends, [asset path]; None where its drift cannot be tilted."""
    days: float
    """Length of a path [day]."""
    assets: list[str]


def sources(shock: Any) -> dict[str, Jumps]:
    """Jumps of a shock by what has them, `common` or an asset; in the order of its tables."""
    if not isinstance(shock, WithNormalJumps | Kou):
        return {}
    return {"common": shock.common} | dict(shock.own)


def first_guess(shock: Any, days: float, assets: Sequence[str]) -> Importance:
    """To start from: for each source that moves any of the assets, at least a jump a path, of sizes twice as wide."""
    tilts = []
    for name, jumps in sources(shock).items():
        if jumps.per_day > 0 and name in ("common", *assets):
            wide = {"per_day": max(jumps.per_day, 1 / days)}
            fields = ("sd",) if isinstance(jumps, NormalJumps) else ("mean_up", "mean_down")
            wide |= {field: 2 * getattr(jumps, field) for field in fields}
            tilts.append({name: _law(jumps, wide)})
    share = _TILTED / max(1, len(tilts))
    return _mixture([_tilt_of(laws, {}, share) for laws in tilts or [{}]])


def refitted(shock: Any, did: Did, weight: np.ndarray) -> Importance:
    """A tilt for each way in which paths of these weights went; those of weight zero do not count: [path]."""
    way, mass = ways(shock, did), tempered(weight)
    by_mass = sorted(((float(mass[way == w].sum()), int(w)) for w in np.unique(way[mass > 0])), reverse=True)
    large = [(m, w) for m, w in by_mass if m >= _LEAST_MASS and np.sum(mass[way == w] > 0) >= _FEWEST]
    kept = (large or by_mass)[:MOST_WAYS]
    shares = np.maximum(np.array([m for m, _ in kept]), 0.05)
    tilts = []
    for share, (_, w) in zip(_TILTED * shares / shares.sum(), kept, strict=True):
        of_way = tempered(np.where(way == w, weight, 0.0))
        laws = {
            name: law
            for s, (name, jumps) in enumerate(sources(shock).items())
            if (law := _fitted(jumps, did, s, of_way, leads=(w + 1) // 2 == s + 1)) is not None
        }
        tilts.append(_tilt_of(laws, _drift(shock, did, of_way), float(share)))
    return _mixture(tilts)


def tempered(weight: np.ndarray) -> np.ndarray:
    """Weights raised to the highest power up to 1 at which they are worth a tenth of the paths that have any.

    Moments of a few heavy paths would lead astray. With flatter weights they are of paths further on than the law that
    is looked for, which costs some of the gain, as a tilt may be any.
    """
    some = weight > 0
    log = np.log(np.where(some, weight, 1.0))
    log -= log[some].max()
    for power in np.linspace(1, 0, 21):
        flat = np.where(some, np.exp(power * log), 0.0)
        if effective_paths(flat) >= max(_WORTH * some.sum(), min(_FEWEST, some.sum() - 1e-9)):
            break
    return flat / flat.sum()


def ways(shock: Any, did: Did) -> np.ndarray:
    """Which way each path went: 0 without a jump, 1 + 2 s by source s down, 2 + 2 s up: [path]."""
    if not did.happened.size:
        return np.zeros(did.happened.shape[-1], dtype=int)
    common = max(abs(shock.common.beta.get(asset, 0.0)) for asset in did.assets)
    reach = np.array([common, *(float(name in did.assets) for name in shock.own)])
    moved = np.where(did.happened, did.sizes, 0.0) * reach[:, None, None]
    flat = moved.reshape(-1, moved.shape[-1])
    largest = np.abs(flat).argmax(axis=0)
    size = np.take_along_axis(flat, largest[None], axis=0)[0]
    return np.where(size == 0, 0, 1 + 2 * (largest // moved.shape[1]) + (size > 0))


def _fitted(jumps: Jumps, did: Did, source: int, mass: np.ndarray, *, leads: bool) -> Jumps | None:
    """The law of a source's jumps on paths of these weights; None where it is the shock's, as far as one can tell."""
    if jumps.per_day == 0:
        return None
    there, expected = did.happened[source], jumps.per_day * did.days
    number = float(mass @ there.sum(axis=0))
    error = np.sqrt(expected / effective_paths(mass))
    if not leads and abs(number - expected) < 4 * error:
        return None
    per_day = min(max(number, 0.5 * expected), expected + MORE_JUMPS) / did.days
    each, sizes = (mass[None] * there).ravel(), did.sizes[source].ravel()
    if effective_paths(each) < _FEWEST:
        return _law(jumps, {"per_day": per_day})
    return _law(jumps, {"per_day": per_day} | _sizes(jumps, sizes, each / each.sum()))


def _sizes(jumps: Jumps, sizes: np.ndarray, mass: np.ndarray) -> dict[str, float]:
    """Moments of weighted sizes, as the fields of a law."""
    if isinstance(jumps, NormalJumps):
        if jumps.sd == 0:
            return {}
        mean = float(mass @ sizes)
        return {"mean": mean, "sd": max(float(np.sqrt(mass @ (sizes - mean) ** 2)), _NARROWEST * jumps.sd)}
    found, upward = {}, float(mass @ (sizes > 0))
    if 0 < jumps.up < 1:
        found["up"] = min(max(upward, 0.02), 0.98)
    for field, sign in (("mean_up", 1), ("mean_down", -1)):
        mine = mass * (sign * sizes > 0)
        if getattr(jumps, field) > 0 and effective_paths(mine) >= _FEWEST:
            found[field] = float(mine @ np.abs(sizes) / mine.sum())
    return found


def _drift(shock: Any, did: Did, mass: np.ndarray) -> dict[str, float]:
    """Mean move of the diffusion by asset [1/day]; none where chance alone would give one as large."""
    diffusion = shock.noise if isinstance(shock, Prescribed) else shock
    if did.ends is None or not isinstance(diffusion, Diffusion):
        return {}
    moving = [i for i, asset in enumerate(did.assets) if diffusion.daily_volatility[asset] > 0]
    names = [did.assets[i] for i in moving]
    mean = did.ends[moving] @ mass
    factor = diffusion.factor(names, did.days)
    off = float(np.sum(np.linalg.solve(factor, mean) ** 2)) * effective_paths(mass)
    if not names or off < chdtri(len(names), _SURE):
        return {}
    return {name: _short(move / did.days) for name, move in zip(names, mean, strict=True)}


def _law(jumps: Jumps, fields: dict[str, float]) -> Jumps:
    """A law of the same kind with other numbers."""
    kind = NormalJumps if isinstance(jumps, NormalJumps) else ExponentialJumps
    numbers = {name: getattr(jumps, name) for name in kind.model_fields}
    return kind(**numbers | {name: _short(value) for name, value in fields.items()})


def _tilt_of(laws: dict[str, Jumps], drift: dict[str, float], share: float) -> Tilt:
    own = {name: law for name, law in laws.items() if name != "common"}
    return Tilt(share=_short(share), common=laws.get("common"), own=own, drift_per_day=drift)


def _mixture(tilts: list[Tilt]) -> Importance:
    return Importance(kind="importance", tilts=tuple(tilts))


def _short(value: float) -> float:
    """Four digits: more would say nothing."""
    return float(f"{value:.4g}")
