"""A finished store's seal: a hash of all that the checksums of its shards leave out.

That is its attributes, the labels along its dims, the layouts of its arrays, and the records that hold the checksums.
It shows what has been changed or damaged, and not who did it: a seal can be made anew.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from stress.results import COMPLETE
from stress.spec import InputError

SEAL = "seal_sha256"
"""Attribute that holds it."""


def seal_of(path: Path) -> str:
    """The seal of a store as it lies there."""
    head = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]
    kept = {key: value for key, value in head.items() if key not in (SEAL, COMPLETE)}
    found = hashlib.sha256(json.dumps(kept, sort_keys=True).encode())
    shards = [path / name / "c" for name in head["variables"]]
    for file in sorted(file for file in path.glob("*/**/*") if file.is_file() and file.suffix != ".partial"):
        if not any(file.is_relative_to(shard) for shard in shards):
            found.update(file.relative_to(path).as_posix().encode() + b"\0" + file.read_bytes())
    return found.hexdigest()


def check_seal(path: Path) -> None:
    """`InputError` where a store is not as it was sealed; what is none, not finished or older has no seal."""
    try:
        head = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if head.get(COMPLETE) and SEAL in head and head[SEAL] != seal_of(path):
        raise InputError(
            f"{path}: its attributes, labels or checksums do not match {SEAL}, the hash it was finished with: they "
            "have been changed. Run the config again."
        )
