"""Which device a run uses, and how JAX is set up for it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stress.spec import InputError

Kind = Literal["auto", "cpu", "gpu"]
_CACHE = "LIQSTRESS_CACHE"


@dataclass(frozen=True)
class Devices:
    """Devices of one kind, to share paths between."""

    kind: str
    """`cpu` or `gpu`."""
    all: tuple[Any, ...]

    @property
    def name(self) -> str:
        """For people: kind, number and model."""
        return f"{self.kind} ({len(self.all)} x {self.all[0].device_kind})"


def cache_folder() -> Path:
    """Where compiled programs are kept between runs; the environment variable LIQSTRESS_CACHE moves it."""
    base = os.environ.get(_CACHE) or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "liqstress" / "jax"


def prepare() -> None:
    """Set JAX up before its first use: one CPU device a core, and a cache of compiled programs.

    Two devices of one core each run a scan over paths faster than one of two cores.
    """
    import jax

    with contextlib.suppress(RuntimeError):  # JAX was in use before: take it as it is.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        jax.config.update("jax_num_cpu_devices", cores)
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def precise(dtype: str) -> None:
    """Have JAX compute in 64 bits where a run asks for it."""
    import jax

    if dtype == "float64" and not jax.config.jax_enable_x64:
        jax.config.update("jax_enable_x64", True)


def choose(kind: Kind = "auto") -> Devices:
    """Devices of the kind asked for.

    Raises:
        InputError: `gpu` was asked for and JAX sees none.
    """
    import jax

    prepare()
    gpus = _found("gpu") if kind != "cpu" else ()
    if kind == "gpu" and not gpus:
        raise InputError(
            "--device gpu: JAX sees no GPU here. Use --device cpu or auto, or install the GPU support "
            "(pip install 'liqstress[gpu]') on a machine with an NVIDIA GPU."
        )
    if gpus:
        return Devices("gpu", gpus)
    if not _found("cpu"):  # JAX_PLATFORMS names other devices alone.
        jax.config.update("jax_platforms", "cpu")
    return Devices("cpu", _found("cpu"))


def _found(backend: str) -> tuple[Any, ...]:
    """Devices that JAX sees of a kind; none where JAX_PLATFORMS names what cannot be had, which JAX merely asserts."""
    import jax

    with contextlib.suppress(RuntimeError, AssertionError):
        return tuple(jax.local_devices(backend=backend))
    return ()
