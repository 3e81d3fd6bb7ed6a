"""Is a prediction the same for every kind of input, alone or in a list?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from diffinst.config import Config, ConfigError, OptionFields, Reading
from diffinst.datasets.synthetic import make_shapes
from diffinst.diffusion.noise import Noise
from diffinst.diffusion.signal import from_signal
from diffinst.inference.predictor import DiffusionInst
from diffinst.io.images import ImageReadError, read_image
from diffinst.models.network import DiffusionInstNetwork
from diffinst.ops.boxes import clip
from diffinst.ops.images import fit_size
from diffinst.results.instances import Instances
from diffinst.structures import size_scale

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def model() -> DiffusionInst:
    return DiffusionInst.from_preset("tiny")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_shapes(tmp_path_factory.mktemp("shapes"), train=1, val=0, size=(48, 64))
    return root / "train" / "000000.png"


def noise_image(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_close(found: Instances, expected: Instances) -> None:
    """Equal to 1e-4 of the image; masks may differ where a probability meets the threshold."""
    assert (len(found), found.image_size) == (len(expected), expected.image_size)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-4)
    unit = 1e-4 * max(expected.image_size)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=max(unit, 1e-3))
    assert torch.equal(found.labels, expected.labels)
    if len(found):
        assert (found.masks != expected.masks).float().mean() < 1e-3


def test_path_pil_array_and_tensor_give_the_same(model: DiffusionInst, path: Path) -> None:
    expected = model.predict(path)
    assert len(expected) > 0 and expected.image_size == (48, 64)
    image = read_image(path)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    for source in (str(path), Image.open(path), image, tensor):
        found = model.predict(source)
        assert found == expected
        assert found.image is not None and np.array_equal(found.image, image)


def test_a_list_gives_a_list(model: DiffusionInst, path: Path) -> None:
    expected = model.predict(path)
    assert model.predict([path]) == [expected]
    assert model.predict((path,)) == [expected]
    assert model.predict([]) == []


def test_images_of_any_size_in_a_list_are_as_alone(model: DiffusionInst) -> None:
    # 48 x 64 and 50 x 65 share one padded size, 64 x 48 and 40 x 90 have others.
    sizes = [(48, 64), (64, 48), (50, 65), (40, 90), (48, 64)]
    images: list[Pixels] = [noise_image(*size, seed=i) for i, size in enumerate(sizes)]
    together = model.predict(list(images), steps=2, seed=3)
    assert [found.image_size for found in together] == sizes
    for image, found in zip(images, together, strict=True):
        assert_close(found, model.predict(image, steps=2, seed=3))


def test_long_lists_are_cut_into_batches(model: DiffusionInst) -> None:
    images = [noise_image(20, 20, seed=i) for i in range(10)]
    found = model.predict(list(images), proposals=4)
    assert_close(found[9], model.predict(images[9], proposals=4))


def test_steps_and_proposals_are_honoured(model: DiffusionInst, path: Path) -> None:
    assert model.predict(path, steps=1) == model.predict(path)  # tiny: one step
    assert model.predict(path, steps=3) != model.predict(path)
    assert len(model.predict(path, proposals=2, max_detections=1000)) <= 2
    assert len(model.predict(path, proposals=2, steps=4, max_detections=1000)) <= 8
    assert len(model.predict(path, proposals=80, max_detections=1000)) > 30


def test_threshold_and_number_kept_are_honoured(model: DiffusionInst, path: Path) -> None:
    everything = model.predict(path, threshold=0)
    middle = float(everything.scores.median())
    above = model.predict(path, threshold=middle)
    assert 0 < len(above) < len(everything) and float(above.scores.min()) >= middle
    assert everything.above(middle) == above
    assert model.predict(path, max_detections=3) == everything[:3]
    assert bool((everything.scores[1:] <= everything.scores[:-1]).all())


def test_the_seed_decides(model: DiffusionInst, path: Path) -> None:
    torch.manual_seed(0)
    first = model.predict(path, steps=2, seed=5)
    torch.manual_seed(99)  # the global generator has no say
    before = torch.get_rng_state()
    assert model.predict(path, steps=2, seed=5) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert model.predict(path, steps=2, seed=6) != first


def test_wrong_values_name_field_and_value(model: DiffusionInst, path: Path) -> None:
    with pytest.raises(ConfigError, match=r"threshold.*1\.5"):
        model.predict(path, threshold=1.5)
    with pytest.raises(ConfigError, match=r"max_detections.*0"):
        model.predict(path, max_detections=0)
    with pytest.raises(ImageReadError, match="no_such"):
        model.predict([path, "no_such.png"])


@pytest.mark.parametrize("evaluate", ["map", "grid"])
@pytest.mark.parametrize("size", [(1, 1), (2000, 30), (30, 2000)])
def test_images_of_extreme_shape(evaluate: str, size: tuple[int, int]) -> None:
    config = Config.from_preset("tiny").updated(
        model={"filters": {"evaluate": evaluate}}, sampler={"steps": 2}
    )
    torch.manual_seed(0)
    model = DiffusionInst(DiffusionInstNetwork(config.model).eval(), config)
    found = model.predict(noise_image(*size))
    assert found.image_size == size and found.masks.shape == (len(found), *size)
    limit = torch.tensor([size[1], size[0]]).repeat(2)
    assert bool(((found.boxes >= 0) & (found.boxes <= limit)).all())


def test_another_network_is_used_at_once(path: Path) -> None:
    model, other = (DiffusionInst.from_preset("tiny", seed=seed) for seed in (0, 1))
    asked: dict[str, Any] = {"proposals": 8, "threshold": 0.0}
    model.predict(path, **asked)
    model.network = other.network
    assert model.predict(path, **asked) == other.predict(path, **asked)


def test_trace_starts_from_the_noise(path: Path) -> None:
    model = DiffusionInst.from_preset("tiny", seed=1)  # several classes of a proposal score high
    trace = model.trace(path, steps=2, proposals=9, seed=4)
    stages = model.config.model.decoder.stages
    assert [(p.step, p.stage) for p in trace] == [(s, k) for s in (0, 1) for k in range(-1, stages)]
    assert [trace[0].time, trace[-1].time] == [999, 499]
    config = model.config
    noise = Noise.draw([4], 2, 9, config.model.diffusion)
    part = config.preprocess
    inside = fit_size(
        (48, 64), short_side=part.short_side, zoom=part.zoom, long_side=part.long_side
    )
    boxes = from_signal(noise.start, size_scale((inside,), "cpu"), config.model.diffusion)[0]
    boxes = clip(boxes * (48 / inside[0]), (48, 64))
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
    assert len(boxes) > 0
    assert rounded(trace[0].instances.boxes) == rounded(boxes)


def test_trace_ends_with_the_prediction(model: DiffusionInst, path: Path) -> None:
    last = model.trace(path, steps=1)[-1].instances
    found = model.predict(path, steps=1, threshold=0, max_detections=1000)
    assert rounded(last.boxes) == rounded(found.boxes)
    assert last == found


def rounded(boxes: torch.Tensor) -> list[list[float]]:
    """Boxes as a sorted list, to hundredths of a pixel."""
    return sorted([round(value, 2) for value in box] for box in boxes.tolist())


def test_how_an_image_is_read_goes_with_every_way_of_asking(tmp_path: Path) -> None:
    model = DiffusionInst.from_preset("tiny")
    noise = np.random.default_rng(0).integers(0, 256, (2, 24, 32, 3), np.uint8)
    first, second = (Image.fromarray(frame) for frame in noise)
    file = tmp_path / "a.webp"
    first.save(file, save_all=True, append_images=[second], lossless=True)
    wanted, page = model.predict(noise[1], proposals=5, threshold=0.0), Reading(page=1)
    asked: OptionFields = {"proposals": 5, "threshold": 0.0}
    alone = model.predict(file, reading=page, **asked)
    (listed,) = model.predict([file], reading=page, **asked)
    (found,) = model.predict(str(tmp_path / "*.webp"), reading=page, **asked)
    *_, streamed = model.stream(file, reading=page, **asked)
    ((_, each),) = model.predict_each([file], reading=page, **asked)
    for result in (alone, listed, found, streamed, each):
        assert isinstance(result, Instances)
        torch.testing.assert_close(result.boxes, wanted.boxes)
    assert listed.image is None and np.array_equal(
        np.asarray(listed.plot(alpha=0.0, boxes=False, labels=False)),
        np.asarray(wanted.plot(alpha=0.0, boxes=False, labels=False)),
    )  # drawn on the page that was read
    with pytest.warns(UserWarning, match=r"a\.webp: holds 2 pages, the first is read"):
        other = model.predict(file, **asked)
    assert not torch.equal(other.boxes, wanted.boxes)
    model.config = model.config.updated(preprocess={"page": 1, "stretch": "full"})
    torch.testing.assert_close(model.predict(file, **asked).boxes, wanted.boxes)
    with pytest.raises(ImageReadError, match="has no page 2; there are 2"):
        model.predict(file, reading=Reading(page=2))
    with pytest.raises(ValueError, match="has been read already; give `reading` to encode"):
        model.predict(model.encode(file), reading=page)


def test_the_bits_of_an_image_do_not_matter() -> None:
    model = DiffusionInst.from_preset("tiny")
    eight = np.random.default_rng(0).integers(0, 256, (24, 32), np.uint8)
    eight[0, :2] = 0, 255
    wanted = model.predict(eight, proposals=5)
    for dtype, factor in ((np.uint16, 4), (np.uint16, 16), (np.uint32, 99), (np.float32, 0.5)):
        with pytest.warns(UserWarning, match="values of more than 8 bits are stretched"):
            found = model.predict((eight * float(factor)).astype(dtype), proposals=5)
        assert found.image is not None and wanted.image is not None
        assert np.abs(found.image.astype(int) - wanted.image).max() <= 2
