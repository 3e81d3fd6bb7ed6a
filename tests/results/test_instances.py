"""A result keeps its fields together; what it converts to, shows and saves says the same."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import dot, scene

from diffinst.results.crops import CroppedMasks
from diffinst.results.instances import Instances
from diffinst.results.render.marks import INK, PALETTE, instance_colors


def grey_image() -> np.ndarray:
    return np.full((4, 6, 3), 100, dtype=np.uint8)


def write(image: np.ndarray, path: Path) -> Path:
    Image.fromarray(image).save(path)
    return path


def test_nothing_found_passes_through_everything(tmp_path: Path) -> None:
    none = Instances.empty((4, 6), ("cat",))
    assert len(none) == 0
    assert none.masks.shape == (0, 4, 6)
    assert none == none[:] == none.above(0.5) == Instances.cat([none, none]).to("cpu")
    assert list(none) == none.to_coco(7) == []
    assert repr(none) == "Instances(0 on 4x6)"
    assert none.tight() == none
    assert len(none.to_supervision()) == 0
    assert none.to_pandas().empty
    assert not none.to_label_map().any()
    assert np.array_equal(np.asarray(none.plot(grey_image())), grey_image())
    assert shown(none).size == (6, 4)
    none.save(tmp_path / "none.png", grey_image())
    none.save_masks(tmp_path / "masks.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "none.png")), grey_image())
    assert not np.asarray(Image.open(tmp_path / "masks.png")).any()


def test_save_draws_over_the_remembered_or_the_given_image(tmp_path: Path) -> None:
    replace(scene(), image=grey_image()).save(tmp_path / "remembered.png")
    scene().save(tmp_path / "given.png", grey_image())
    saved = np.asarray(Image.open(tmp_path / "remembered.png"))
    assert np.array_equal(saved, np.asarray(Image.open(tmp_path / "given.png")))
    assert saved.shape == (4, 6, 3)
    assert not np.array_equal(saved, grey_image())


def one_large_object() -> Instances:
    """Large enough to be labelled, with its image."""
    mask = torch.zeros(1, 120, 160, dtype=torch.bool)
    mask[0, 10:110, 10:150] = True
    return Instances(
        boxes=torch.tensor([[5.0, 5.0, 155.0, 115.0]]),
        scores=torch.tensor([0.5]),
        labels=torch.tensor([0]),
        mask_crops=CroppedMasks.from_dense(mask),
        image_size=(120, 160),
        class_names=("cat",),
        image=np.full((120, 160, 3), 90, np.uint8),
    )


def test_save_writes_what_plot_draws(tmp_path: Path) -> None:
    found = replace(scene(), image=grey_image())
    found.save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.asarray(found.plot()))
    plain, boxed = found.plot(labels=False), found.plot(labels=False, boxes=True)
    assert plain != boxed
    assert found.plot(labels=False, alpha=1) != plain
    with pytest.raises(ValueError, match="alpha is -1"):
        found.plot(alpha=-1)
    for name, value in {"boxes": True, "labels": False, "scores": False, "alpha": 1.0}.items():
        large = one_large_object()
        large.save(tmp_path / "b.png", **{name: value})  # type: ignore[arg-type]
        saved = np.asarray(Image.open(tmp_path / "b.png"))
        assert np.array_equal(saved, np.asarray(large.plot(**{name: value})))  # type: ignore[arg-type]
        assert not np.array_equal(saved, np.asarray(large.plot())), name


def test_the_image_given_comes_before_the_remembered_one_and_that_before_the_file(
    tmp_path: Path,
) -> None:
    none = Instances.empty((4, 6), ("cat",))
    given, remembered, file = (np.full((4, 6, 3), v, np.uint8) for v in (10, 20, 30))
    found = replace(none, image=remembered, path=write(file, tmp_path / "file.png"))
    assert np.array_equal(np.asarray(found.plot(given)), given)
    assert np.array_equal(np.asarray(found.plot(write(given, tmp_path / "given.png"))), given)
    assert np.array_equal(np.asarray(found.plot()), remembered)
    assert np.array_equal(np.asarray(replace(found, image=None).plot()), file)


def test_a_file_that_is_gone_or_of_another_size_is_told(tmp_path: Path) -> None:
    path = write(grey_image(), tmp_path / "a.png")
    found = replace(scene(), path=path)
    found.save(tmp_path / "out.png")
    write(np.zeros((6, 4, 3), np.uint8), path)
    with pytest.raises(ValueError, match=r"a\.png: is 6x4 .*belongs to 4x6; predict again"):
        found.plot()
    path.unlink()
    with pytest.raises(ValueError, match=r"a\.png: there is no such file.*plot\(image=image\)"):
        found.save(tmp_path / "out.png")
    with pytest.raises(ValueError, match=r"neither its image nor a file; give the image"):
        scene().plot()


def shown(found: Instances) -> Image.Image:
    """What a notebook shows."""
    return Image.open(io.BytesIO(found._repr_png_()))


def test_a_notebook_shows_the_drawing_at_a_moderate_size() -> None:
    found = replace(scene(), image=grey_image())
    assert np.array_equal(np.asarray(shown(found)), np.asarray(found.plot()))
    wide = Instances.empty((500, 3000), ("cat",))
    assert shown(replace(wide, image=np.zeros((500, 3000, 3), np.uint8))).size == (1000, 167)


def test_a_notebook_shows_colours_on_plain_ground_without_an_image(tmp_path: Path) -> None:
    for found in (scene(), replace(scene(), path=tmp_path / "gone.png")):
        pixels = np.asarray(shown(found))
        assert pixels.shape == (4, 6, 3)
        colors = instance_colors(found.boxes, found.scores)
        assert tuple(pixels[2, 1]) == colors[0]
        assert tuple(pixels[0, 4]) == colors[1]
    assert tuple(np.asarray(shown(dot()))[0, 0]) == PALETTE[0]
    assert tuple(np.asarray(shown(Instances.empty((1, 1), ("cat",))))[0, 0]) == INK


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.jpeg", "JPEG")]
)
def test_the_suffix_decides_the_file_type(tmp_path: Path, name: str, kind: str) -> None:
    scene().save(tmp_path / name, grey_image())
    with Image.open(tmp_path / name) as saved:
        assert saved.format == kind
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_save_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"save\(path, image=image\)"):
        scene().save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"\.png, \.jpg, \.jpeg"):
        scene().save(tmp_path / "a.tiff", grey_image())
    with pytest.raises(ValueError, match=r"\.png"):
        scene().save_masks(tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_result_on_another_device_is_the_same_result(tmp_path: Path) -> None:
    found = scene().to("cuda")
    assert found.boxes.is_cuda
    assert found == scene()
    assert found.above(0.5) == scene().above(0.5)
    assert found.to_coco(1) == scene().to_coco(1)
    assert len(found.to_supervision()) == 3
    assert found.tight() == scene().tight()
    assert np.array_equal(found.to_label_map(), scene().to_label_map())
    assert found.to_pandas().equals(scene().to_pandas())
    found.save(tmp_path / "a.png", grey_image())
    found.save_masks(tmp_path / "b.png")
