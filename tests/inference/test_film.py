"""Does the film strip show what the trace holds, and is the file what its name says?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffinst.inference.film import denoising_strip, strip_frames
from diffinst.inference.predictor import DiffusionInst


@pytest.fixture(scope="module")
def model() -> DiffusionInst:
    return DiffusionInst.from_preset("tiny")


IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_frames_are_boxes_in_and_the_stages_asked_for(model: DiffusionInst) -> None:
    trace = model.trace(IMAGE, steps=2, proposals=6)
    frames = strip_frames(trace, threshold=0.0, stages=[1])
    assert [frame.title for frame in frames] == [
        "step 1, t = 999: boxes in",
        "step 1, stage 2",
        "step 2, t = 499: boxes in",
        "step 2, stage 2",
    ]
    assert [frame.boxes_only for frame in frames] == [True, False, True, False]
    assert len(strip_frames(trace, threshold=0.0)) == 2 * 3


def test_the_threshold_hides_masks_and_no_boxes(model: DiffusionInst) -> None:
    trace = model.trace(IMAGE, proposals=6)
    shown, hidden = (strip_frames(trace, threshold=t) for t in (0.0, 1.0))
    first, last = (([len(f[i].instances.scores) for f in (shown, hidden)]) for i in (0, -1))
    assert last[0] > 0 and last[1] == 0
    assert first[0] == first[1] > 0


@pytest.mark.parametrize(("suffix", "kind"), [(".png", "PNG"), (".jpg", "JPEG")])
def test_the_strip_is_written_whole(
    model: DiffusionInst, tmp_path: Path, suffix: str, kind: str
) -> None:
    path = tmp_path / "new" / f"strip{suffix}"
    strip = denoising_strip(model, IMAGE, path, proposals=6, threshold=0.0)
    with Image.open(path) as saved:
        assert (saved.format, saved.size) == (kind, strip.size)
        if kind == "PNG":
            assert np.array_equal(np.asarray(saved), np.asarray(strip))
    # Boxes in, stages 1 and 2 of two, result: four tiles in a row.
    assert strip.width > 4 * 320 > strip.height
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_other_suffixes_are_refused_before_any_work(model: DiffusionInst, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"strip\.gif: a film strip is a \.png or a \.jpg file"):
        denoising_strip(model, tmp_path / "missing.png", tmp_path / "strip.gif")
