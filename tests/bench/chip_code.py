"""What the kernel on the chip is made of for an H100, seen without one: registers, spills, instructions of its loops.

    uv run --with triton python tests/bench/chip_code.py

The kernel of the bench's calm case is lowered as far as JAX does without a GPU, and compiled from there by the package
`triton`, whose compiler is not that of JAX but of the same family. Takes minutes.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax._src.pallas.triton import lowering
from jax.sharding import AbstractDevice, AbstractMesh
from stress_kernels.chip import LANES, on_chip
from stress_kernels.day_tables import sizes_of

from stress.bench import cases
from stress.build import build, on_device

_H100 = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")


def kernel_text(paths: int = 1024) -> tuple[str, int]:
    """The kernel of a day in Triton's language, and how many warps a block has."""
    texts, lower = [], lowering.lower_jaxpr_to_triton_module

    def kept(*given: Any, **more: Any) -> Any:
        result = lower(*given, **more)
        texts.append(result.module.operation.get_asm(enable_debug_info=False))
        return result

    lowering.lower_jaxpr_to_triton_module = kept
    config = cases(paths, 24)["calm"]
    world, ladders, _ = on_device(build(config))
    log = jax.ShapeDtypeStruct((24 * 60, len(config.assets), paths), jnp.float32)
    program = jax.jit(lambda log: on_chip(log, ladders, world, lanes=LANES)[1])
    with warnings.catch_warnings(), jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=_H100)):
        warnings.simplefilter("ignore", DeprecationWarning)
        program.trace(log).lower(lowering_platforms=("cuda",))
    return texts[-1], sizes_of(ladders, world, LANES, interpret=False).threads // 32


def loops(code: str) -> list[tuple[int, int]]:
    """First and last instruction of every loop of some length, outer ones first."""
    labels, jumps, number = {}, [], 0
    for line in code.splitlines():
        if label := re.match(r"\s*(\.L_\S+):", line):
            labels[label.group(1)] = number
        elif re.match(r"\s*/\*[0-9a-f]+\*/\s", line):
            if back := re.search(r"\bBRA\b.*`\((\.L_\S+)\)", line):
                jumps.append((labels.get(back.group(1), number + 1), number))
            number += 1
    return sorted((a, b) for a, b in jumps if b - a > 200)


def compiled(file: Path, warps: int) -> bytes:
    """Machine code of a kernel: by all stages of the compiler, of which `triton.compile` leaves out the first."""
    compiler: Any = importlib.import_module("triton.compiler.compiler")
    ir: Any = importlib.import_module("triton._C.libtriton").ir
    target = importlib.import_module("triton.backends.compiler").GPUTarget("cuda", 90, 32)
    language: Any = importlib.import_module("triton.backends.compiler").Language
    backend, context, stages = compiler.make_backend(target), ir.context(), {}
    ir.load_dialects(context)
    backend.load_dialects(context)
    options = backend.parse_options({"num_warps": warps, "num_stages": 1, "enable_fp_fusion": True})
    backend.add_stages(stages, options, language.TRITON)
    module, about = ir.parse_mlir_module(str(file), context), {"num_warps": warps, "target": target, "name": "day"}
    module.context = context
    for stage in stages.values():
        module = stage(module, about)
    return module


def main() -> None:
    """Compile and print."""
    tools = Path(str(importlib.import_module("triton").__file__)).parent / "backends" / "nvidia" / "bin"
    with tempfile.TemporaryDirectory() as folder:
        file, binary = Path(folder) / "day.ttir", Path(folder) / "day.cubin"
        text, warps = kernel_text()
        file.write_text(text)
        binary.write_bytes(compiled(file, warps))
        sizes = subprocess.run([tools / "cuobjdump", "-res-usage", binary], capture_output=True, text=True)
        code = subprocess.run([tools / "nvdisasm", "-c", binary], capture_output=True, text=True, check=True).stdout
    print(f"{len(text.splitlines()):,} lines for Triton, {warps} warps\n{sizes.stdout}{sizes.stderr}")
    for first, last in loops(code):
        print(f"loop of {last - first:,} instructions, from {first:,}")


if __name__ == "__main__":
    main()
