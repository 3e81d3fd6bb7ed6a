"""Is an image there for the programs that look for it beside the annotations?"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffinst.results.formats.scene import Scene, place_image


@pytest.mark.parametrize("links", [True, False])
def test_a_file_is_placed_under_the_name_of_the_scene(
    scene: Scene, tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:

        def refuse(source: Path, target: Path) -> None:
            raise OSError("no links here")

        monkeypatch.setattr(os, "link", refuse)
    source = scene.found.path
    assert source is not None
    for _ in range(2):  # again, too
        assert place_image(replace(scene, name="a"), tmp_path / "to") == "a.png"
        assert (tmp_path / "to" / "a.png").read_bytes() == source.read_bytes()
        assert (tmp_path / "to" / "a.png").samefile(source) == links
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["a.png"]


def test_an_image_of_no_file_becomes_a_png(nothing: Scene, tmp_path: Path) -> None:
    assert place_image(nothing, tmp_path) == "none.png"
    image = nothing.found.image
    assert image is not None
    assert np.array_equal(np.asarray(Image.open(tmp_path / "none.png")), image)
    blind = replace(nothing, name="b", found=replace(nothing.found, image=None))
    assert place_image(blind, tmp_path) == "b.png"
    assert not (tmp_path / "b.png").exists()
