"""What price levels hold before any path: the liquidation map, and the reproduction number of every market."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpy.typing import NDArray
from stress_kernels.levels import quotes_at, triggered_between

from stress.build import Built, build
from stress.config import Run
from stress.devices import Kind, choose, precise
from stress.diffusions import Kou, WithNormalJumps
from stress.scenarios import Prescribed
from stress.variables import COORDINATES, SIDES

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]

MOVES = tuple(k / 200 for k in range(-100, 101))
"""Price moves that are looked at: -50 to +50 % in steps of half a per cent [1]."""
BLOCK_USD = 10e6
"""Size of the block that a reproduction number is stated for."""
TOGETHER = "all"
"""Scenario in which all assets move, by their betas."""


class Levels:
    """The tables of a run, put on a device once, to ask what price levels hold."""

    def __init__(self, run: Run, *, device: Kind = "auto") -> None:
        """Read the files, draw the population, compile ladders and accounts.

        Raises:
            InputError: The config or a file it names is wrong.
        """
        self.run = run
        self._device = choose(device).all[0]
        precise(run.dtype)
        built: Built = build(run)
        self._tables = jax.device_put((built.ladders, built.accounts, built.world), self._device)

    def liquidation_map(self, moves: Sequence[float] = MOVES) -> xr.Dataset:
        """USD closed where prices jump to a level at once, at the marks of that level.

        Each asset moves alone, or `all` do: the first one by `move`, the others by their betas on log-returns. What is
        counted is what the accounts' own triggers give, without the impact of the orders themselves: of accounts on
        ladders every close, staged ones too, whose triggers lie on the way; of accounts on cross margin what their
        first test closes. A token without a perpetual moves its spot price everywhere.

        Args:
            moves: Of the asset that moves, or of the first one, above -1 [1].

        Returns:
            `closed` [USD], and `added`: the part of it that the next move nearer to the start does not close, dims
            `moved move venue asset side`.
        """
        assets, beta = list(self.run.assets), betas(self.run)
        direction = np.vstack([np.eye(len(assets)), [beta[asset] for asset in assets]])

        def columns(logs: Array) -> Array:
            return (direction.T[:, :, None] * logs).reshape(len(assets), -1)

        def since(logs: Array) -> Array:
            closed = self._between(columns(logs), columns(_logs(moves)), None)
            return np.moveaxis(closed.reshape(*closed.shape[:3], len(direction), -1), (3, 4), (0, 1))

        dims = ("moved", "move", "venue", "asset", "side")
        note = "USD closed where prices jump to a level, at its marks"
        variables = {
            "closed": (dims, since(_logs(np.zeros(len(moves)))), "USD", note),
            "added": (dims, since(_logs(nearer(moves))), "USD", f"{note}, less what the next level closes"),
        }
        moved = {"moved": np.array([*assets, TOGETHER], dtype=str)}
        return self._dataset(variables, moves, moved, betas=json.dumps(beta))

    def reproduction_number(
        self, moves: Sequence[float] = MOVES, *, block_usd: float = BLOCK_USD, depth: float = 1.0
    ) -> xr.Dataset:
        """USD triggered by the impact of a block, per USD of the block, at levels of one asset.

        All that is triggered up to the level is gone, and the books are untouched. Then somebody sells (side `long`,
        at and below the start) or buys (`short`, at and above it) a block in one market, whole and at once. It moves
        the index everywhere by the share rho and the market's own mark as far as the venue's rule shows it at that
        moment, with the average basis still at 0: a median shows the index alone, `last` everything. Counted is what
        this triggers in all markets, and in the market itself (`own`), in the first round. The number depends on the
        size of the block, as impact is concave; above 1 a market feeds its own fall.

        Args:
            moves: Of the asset alone [1].
            block_usd: Size of the block.
            depth: How many times thinner than usual the books are.

        Returns:
            `reproduction_number` and `own` [1], dims `venue asset side move`; NaN on the side's other moves and where
            nothing is listed.
        """
        logs, venues, assets = _logs(moves), list(self.run.venues), list(self.run.assets)
        number = np.full((len(venues), len(assets), len(SIDES), len(logs)), np.nan)
        own = number.copy()
        listed = [(v, a) for v, venue in enumerate(venues) for a in range(len(assets))
                  if assets[a] in self.run.markets(venue)]  # fmt: skip
        cells = [(v, a, s, i) for v, a in listed for s in range(2) for i in np.flatnonzero(logs * (2 * s - 1) >= 0)]
        v, a, s, i = np.array(cells).reshape(-1, 4).T
        n = np.arange(len(cells))
        level, flow = np.zeros((len(assets), len(n))), np.zeros((len(venues), len(assets), len(n)))
        level[a, n], flow[v, a, n] = logs[i], (2 * s - 1) * block_usd
        closed = self._between(level, level, flow, depth).sum(axis=2) / block_usd
        number[v, a, s, i], own[v, a, s, i] = closed.sum(axis=(0, 1)), closed[v, a, n]
        dims = ("venue", "asset", "side", "move")
        variables = {
            "reproduction_number": (dims, number, "1", "USD triggered in all markets per USD of a block in this one"),
            "own": (dims, own, "1", "USD triggered in the same market per USD of the block"),
        }
        return self._dataset(variables, moves, block_usd=block_usd, depth=depth)

    def _between(self, first: Array, last: Array, flow: Array | None, depth: float = 1.0) -> Array:
        """USD closed on the way from one level to the next with a flow, (v a s n); levels (a n), flow (v a n)."""
        flow = np.zeros((len(self.run.venues), *last.shape)) if flow is None else flow
        given = [np.asarray(x, self.run.dtype) for x in (first, last, flow, depth)]
        with jax.default_device(self._device):
            return np.asarray(_closed(*given, *self._tables), np.float64)

    def _dataset(
        self,
        variables: Mapping[str, Any],
        moves: Sequence[float],
        more: Mapping[str, Array] | None = None,
        **attrs: Any,
    ) -> xr.Dataset:
        import xarray as xr

        labels = {"venue": list(self.run.venues), "asset": list(self.run.assets), "side": list(SIDES)}
        axes: dict[str, Any] = {name: ((name,), of, COORDINATES[name].attrs) for name, of in labels.items()}
        axes["move"] = ("move", np.asarray(moves), {"units": "1", "long_name": "price over the start's, less 1"})
        axes |= {name: ((name,), values) for name, values in (more or {}).items()}
        arrays = {
            name: (dims, values, {"units": units, "long_name": note})
            for name, (dims, values, units, note) in variables.items()
        }
        return xr.Dataset(arrays, axes, {"name": self.run.name, **attrs})


def nearer(moves: Sequence[float] | Array) -> Array:
    """The next of some moves in the direction of the start, or the start."""
    known = np.unique([*moves, 0.0])
    place = np.searchsorted(known, moves)
    return known[place - np.sign(moves).astype(int)]


@jax.jit
def _closed(first: Any, last: Any, flow: Any, depth: Any, ladders: Any, accounts: Any, world: Any) -> Any:
    before, after = quotes_at(first, 0 * flow, depth, world), quotes_at(last, flow, depth, world)
    return triggered_between(before, after, ladders, accounts, world)


def _logs(moves: Sequence[float] | Array) -> Array:
    if not np.all(np.asarray(moves) > -1):
        raise ValueError(f"moves are {list(moves)}, expected numbers above -1. Leave the others out.")
    return np.log1p(np.asarray(moves, np.float64))


def betas(run: Run) -> dict[str, float]:
    """Log-return of every asset per log-return of the first one, when all move together.

    That of common jumps; of a prescribed path, at the largest move of the first asset; else, or where the first asset
    does not move, the ratio of daily volatilities.
    """
    lead, shock = next(iter(run.assets)), run.shock
    together: dict[str, float] = {}
    if isinstance(shock, WithNormalJumps | Kou):
        together = {asset: shock.common.beta.get(asset, 0.0) for asset in run.assets}
    elif isinstance(shock, Prescribed):
        logs = {asset: shock.log_path(asset, np.array(shock.minutes)) for asset in run.assets}
        largest = int(np.argmax(np.abs(logs[lead])))
        together = {asset: float(log[largest]) for asset, log in logs.items()}
    if not together.get(lead):
        together = {asset: spec.daily_volatility for asset, spec in run.assets.items()}
    return {asset: size / together[lead] for asset, size in together.items()}
