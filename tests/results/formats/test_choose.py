"""Is every format found by its name, alone and in a folder?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import pytest

from diffinst.results.formats.choose import FOLDERS, SUFFIXES, FormatName, checked, folder_format
from diffinst.results.formats.scene import Scene


@pytest.mark.parametrize("name", get_args(FormatName))
def test_one_result_and_a_folder(name: FormatName, scene: Scene, tmp_path: Path) -> None:
    for suffix in SUFFIXES[name]:
        scene.found.export(tmp_path / "new" / f"a{suffix}", name)
        assert (tmp_path / "new" / f"a{suffix}").stat().st_size > 0
    out = tmp_path / "out"
    format_ = folder_format(name, out, scene.found.class_names)
    assert not out.exists()  # nothing is touched before there is something to write
    format_.add(scene)
    format_.finish()
    (written,) = out.iterdir()
    assert written.name == name if name in FOLDERS else written.suffix == SUFFIXES[name][0]
    assert written.is_dir() == (name in FOLDERS)


def test_unknown_formats_and_endings(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--as yoyo: unknown; allowed are coco, coco-masks, yolo"):
        checked("yoyo", "--as")
    with pytest.raises(ValueError, match=r"a\.png: files of the format labels are \.tif or \.tiff"):
        scene.found.export(tmp_path / "a.png", "labels")


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("imagej", "roifile", "imagej"),
        ("labels", "tifffile", "microscopy"),
        ("csv", "skimage.measure", "measurements"),
        ("parquet", "pyarrow.parquet", "measurements"),
    ],
)
def test_a_missing_package_is_named(
    name: FormatName, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"pip install 'diffinst\[{extra}\]'"):
        folder_format(name, tmp_path, ("cell",))
