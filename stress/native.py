"""The kernel for the cores of a CPU: built by the machine's own C++ compiler at its first use, and kept."""

from __future__ import annotations

import ctypes
import hashlib
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from stress.devices import cache_folder

_COMPILER = "g++"
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-Wno-psabi", "-shared", "-fPIC")
"""Products and sums are not joined, which would make a path's last bit depend on the compiler and on its neighbours."""


@cache
def lacking() -> str:
    """Why the kernel cannot be had here, as a clause; nothing where it can, and then JAX knows it."""
    import jax
    from stress_kernels.native import TARGET

    if shutil.which(_COMPILER) is None:
        return f"there is no {_COMPILER}"
    try:
        handler = getattr(ctypes.CDLL(str(_library())), TARGET)
    except _NotBuilt as error:
        return f"{_COMPILER} does not build it ({error})"
    except (OSError, AttributeError) as error:
        return f"it cannot be kept or loaded ({error})"
    jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(handler), platform="cpu")
    return ""


@cache
def compiler() -> str:
    """Name and version of what builds it."""
    said = subprocess.run([_COMPILER, "-dumpfullversion"], capture_output=True, text=True)
    return f"{_COMPILER} {said.stdout.strip()}"


class _NotBuilt(Exception):
    """What a compiler says of what it refuses."""


def _library() -> Path:
    """The library for this kind of processor, built where nobody has yet; that a compiler refuses is kept as well."""
    import jax
    import stress_kernels

    folder = Path(str(stress_kernels.__file__)).parent
    source, headers = folder / "native.cpp", jax.ffi.include_dir()
    parts = [file.read_bytes() for file in (source, *sorted(folder.glob("native_*.hpp")))]
    parts += [x.encode() for x in (compiler(), jax.__version__, _processor(), *FLAGS)]
    file = cache_folder().parent / "native" / f"{hashlib.sha256(b'|'.join(parts)).hexdigest()}.so"
    refused = file.with_suffix(".refused")
    if refused.exists():
        raise _NotBuilt(refused.read_text(encoding="utf-8"))
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as made:
            built = Path(made) / file.name
            call = [_COMPILER, *FLAGS, "-isystem", headers, str(source), "-o", str(built)]
            outcome = subprocess.run(call, capture_output=True, text=True)
            if outcome.returncode:
                refused.write_text(_first_error(outcome.stderr), encoding="utf-8")
                raise _NotBuilt(_first_error(outcome.stderr))
            built.replace(file)
    return file


def _processor() -> str:
    """What the code is made for: a folder may be shared by machines that are not alike."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    wanted = ("flags", "Features", "model name")
    return "|".join(sorted({line for line in lines if line.startswith(wanted)})) or platform.node()


def _first_error(said: str) -> str:
    lines = [line for line in said.splitlines() if "error" in line] or said.splitlines()
    return lines[0] if lines else "it says nothing"
