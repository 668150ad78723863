"""The kernel of a CPU is built once, and where it cannot be it says why; `test_fast.py` is about what it computes."""

from pathlib import Path

import pytest

from stress import native

needs_compiler = pytest.mark.skipif(bool(native.lacking()), reason=native.lacking())


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Of one's own, where nothing is built yet."""
    monkeypatch.setattr(native, "cache_folder", lambda: tmp_path / "jax")
    return tmp_path / "native"


def compiled_by(monkeypatch: pytest.MonkeyPatch, compiler: str) -> str:
    """Why the kernel cannot be had from a compiler."""
    monkeypatch.setattr(native, "_COMPILER", compiler)
    return native.lacking.__wrapped__()


@needs_compiler
def test_it_is_built_once(cache, monkeypatch):
    first = native._library()
    built = first.stat().st_mtime_ns
    assert native._library() == first and first.stat().st_mtime_ns == built
    assert [file.name for file in cache.iterdir()] == [first.name]
    monkeypatch.setattr(native, "_processor", lambda: "another")
    assert native._library() != first


def test_without_a_compiler_it_cannot_be_had(monkeypatch):
    assert compiled_by(monkeypatch, "no-such-compiler") == "there is no no-such-compiler"


def test_it_says_what_a_compiler_refuses(cache, monkeypatch, tmp_path):
    script = tmp_path / "refuses"
    script.write_text("#!/bin/sh\necho 'In file included' >&2\necho 'error: no such flag' >&2\nexit 1\n")
    script.chmod(0o755)
    assert compiled_by(monkeypatch, str(script)) == f"{script} does not build it (error: no such flag)"
    assert [file.suffix for file in cache.iterdir()] == [".refused"]
    script.write_text("#!/bin/sh\nexit 0\n")
    assert "no such flag" in compiled_by(monkeypatch, str(script))


def test_it_cannot_be_had_where_it_cannot_be_kept(cache, monkeypatch):
    cache.write_text("in the way")
    assert "it cannot be kept or loaded" in compiled_by(monkeypatch, "true")


def test_a_damaged_library_is_not_used(cache, monkeypatch, tmp_path):
    script = tmp_path / "nonsense"
    script.write_text('#!/bin/sh\nfor last; do :; done\necho nonsense > "$last"\n')
    script.chmod(0o755)
    assert "it cannot be kept or loaded" in compiled_by(monkeypatch, str(script))
