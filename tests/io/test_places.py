"""Caches lie where the user or the system wants them."""

import sys
from pathlib import Path

import pytest

from diffinst.io import places
from diffinst.io.places import cache_folder


def test_the_variable_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    monkeypatch.setenv("DIFFINST_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="tells where caches lie on Linux")
def test_else_it_is_where_caches_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DIFFINST_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "diffinst"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "diffinst"
    assert list(tmp_path.iterdir()) == []


def test_without_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIFFINST_CACHE", raising=False)
    for unresolved in (Path("~/.cache/diffinst"), Path("diffinst")):
        monkeypatch.setattr(places, "user_cache_path", lambda *_, at=unresolved, **__: at)
        with pytest.raises(RuntimeError, match="no home folder; set DIFFINST_CACHE"):
            cache_folder()
