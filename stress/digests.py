"""What identifies a run: its config as JSON, and the sha256 of that and of all files it reads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from stress.config import Run
from stress.prices import find_file
from stress.recorded import Recorded
from stress.spec import InputError


def config_json(run: Run) -> str:
    """The whole config, defaults and included files too, as one line of JSON that can be read again.

    Tables keep their order: that of the assets decides who gets which random numbers, and what a matrix means.
    """
    return json.dumps(run.model_dump(mode="json"), separators=(",", ":"))


def digest(run: Run) -> str:
    """sha256 of everything that decides the numbers: the config, and the bytes of the files it reads."""
    data, files = run.model_dump(mode="json"), input_digests(run)
    data["portfolio"] |= {key: files.pop(key) for key in ("positions", "collateral")}
    data["prices"] = {"start": data["prices"]["start"], "files": files}
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()


def input_digests(run: Run) -> dict[str, str | None]:
    """sha256 of each file that a run reads: positions, collateral (None where absent), and prices by asset."""
    files = {key: _file_digest(getattr(run.portfolio, key)) for key in ("positions", "collateral")}
    return files | {asset: _file_digest(str(file)) for asset, file in price_files(run).items()}


def price_files(run: Run) -> dict[str, Path]:
    """Price file of each asset; none where the run does not read any."""
    if not isinstance(run.shock, Recorded) or run.prices.dir is None:
        return {}
    return {asset: find_file(Path(run.prices.dir), asset, run.prices.files) for asset in run.assets}


def _file_digest(file: str | None) -> str | None:
    if file is None:
        return None
    try:
        with Path(file).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}). Give an existing file.") from None
