"""Notebooks as they are committed: run from top to bottom, pictures kept, nothing of the machine that ran them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MACHINE = re.compile(r"(?<![\w.])/(?:tmp|home|root|work|Users|private)/")
"""Begins the name of a file on one machine."""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_notebooks_are_kept_executed_and_clean(path: Any) -> None:
    text = path.read_text()
    cells = json.loads(text)["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [cell["metadata"] for cell in cells if cell["metadata"]]
    found = MACHINE.search(text)
    assert found is None, text[max(found.start() - 60, 0) : found.end() + 60]


def test_every_chapter_is_named_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    numbers = {path.stem.partition("_")[0] for path in NOTEBOOKS}
    chapters = next(part for part in readme.split("\n\n") if part.startswith("The notebooks are chapters"))
    assert numbers <= set(re.findall(r"\b\d+\b", chapters))
