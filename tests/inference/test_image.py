"""Does an encoded image answer as the model does, step by step, from any start?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffinst.config import ConfigError
from diffinst.diffusion.start import Start
from diffinst.inference import runner
from diffinst.inference.predictor import DiffusionInst


@pytest.fixture(scope="module")
def model() -> DiffusionInst:
    return DiffusionInst.from_preset("tiny")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("images") / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(file)
    return file


def test_it_is_asked_often_and_encoded_once(
    model: DiffusionInst, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = model.encode(path)
    assert (image.size, image.path) == ((40, 60), path) and "40x60" in repr(image)
    wanted = {steps: model.predict(path, steps=steps, seed=3) for steps in (1, 2)}
    monkeypatch.setattr(model.network, "features", lambda *_: pytest.fail("encoded again"))
    for steps, expected in wanted.items():
        assert image.predict(steps=steps, seed=3) == expected
        assert model.predict(image, steps=steps, seed=3) == expected
    assert model.encode(image) is image


def test_options_without_effect_on_prompts_are_refused(model: DiffusionInst, path: Path) -> None:
    image = model.encode(path)
    assert len(image.prompt(points=[[9, 9]], seed=1, mask_quality=1.0, mask_threshold=0.4)) == 1
    said = r"^prompt: steps, threshold: no option of prompts.* allowed are seed, mask_quality, mask"
    for asked in (image.prompt, image.prompt_candidates):
        with pytest.raises(ConfigError, match=said):
            asked(points=[[9, 9]], steps=4, threshold=0.9)  # type: ignore[call-arg]


def test_a_start_of_another_kind_is_refused(model: DiffusionInst, path: Path) -> None:
    for ask in (model.predict, model.stream):
        with pytest.raises(ValueError, match=r"start: a Tensor; give Start\(boxes, time\)"):
            list(ask(path, start=torch.zeros(3, 4)))  # type: ignore[call-overload, arg-type]


def test_a_list_shares_batches_and_each_answers_as_alone(
    model: DiffusionInst, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = np.random.default_rng(1)
    sizes = ((40, 60), (40, 90), (48, 64))
    images = [draws.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    wanted = [model.predict(image, threshold=0.0) for image in images]
    monkeypatch.setattr(runner, "FEW_AT_ONCE", 2)
    seen, features = [], model.network.features

    def watched(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(len(pixels))
        return features(pixels)

    monkeypatch.setattr(model.network, "features", watched)
    encoded = model.encode(images)
    assert seen == [2, 1] and tuple(image.size for image in encoded) == sizes
    for image, expected in zip(encoded, wanted, strict=True):
        found = image.predict(threshold=0.0)
        torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-4)
        table = image.encoded.pyramid.table
        assert table.untyped_storage().nbytes() == table.numel() * table.element_size()
    assert model.batch_of((40, 60)) == ((96, 160), 2)


def test_a_stream_ends_with_the_prediction(model: DiffusionInst, path: Path) -> None:
    image = model.encode(path)
    found = list(image.stream(steps=3, threshold=0.0, max_detections=1000))
    assert len(found) == 3
    assert found[-1] == image.predict(steps=3, threshold=0.0, max_detections=1000)
    traced = image.trace(steps=3, threshold=0.0, max_detections=1000)
    assert [result for _, result in traced] == found
    assert [len(f) for f in found] == sorted(len(f) for f in found)
    assert all(f.path == path and f.image is not None for f in found)
    assert list(model.stream(path, steps=3, threshold=0.0, max_detections=1000)) == found


def test_a_stream_may_be_left_at_any_time(model: DiffusionInst, path: Path) -> None:
    stream = model.stream(path, steps=4)
    first = next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert first == next(model.stream(path, steps=4))
    assert not torch.is_inference_mode_enabled()  # the caller's own mode holds between the steps
    for _ in model.stream(path, steps=2):
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("ensemble", ["all", "official", "last"])
def test_every_item_of_a_stream_is_the_best_so_far(
    model: DiffusionInst, path: Path, ensemble: str
) -> None:
    options = {"steps": 3, "ensemble": ensemble, "threshold": 0.0}
    found = list(model.stream(path, **options))  # type: ignore[arg-type]
    assert all(len(f) > 0 for f in found)
    assert found[-1] == model.predict(path, **options)  # type: ignore[call-overload]


def test_an_image_of_another_model_is_refused(model: DiffusionInst, path: Path) -> None:
    other = DiffusionInst.from_preset("tiny", seed=1)
    image = model.encode(path)
    for ask in (other.predict, other.encode, lambda i: list(other.stream(i))):
        with pytest.raises(ValueError, match=r"EncodedImage\(40x60.* encoded by another model; "):
            ask(image)


def test_options_are_checked_when_asked(model: DiffusionInst, path: Path) -> None:
    image = model.encode(path)
    for ask in (image.predict, image.stream, image.trace):
        with pytest.raises(ConfigError, match="steps"):
            ask(steps=0)


def test_boxes_near_the_clean_end_are_where_a_run_begins(model: DiffusionInst, path: Path) -> None:
    image = model.encode(path)
    boxes = [[5, 5, 20, 30], [30, 10, 50, 35]]
    ((points, _),) = image.trace(start=Start(boxes, time=0), proposals=2)
    assert points[0].time == 0 and points[0].stage == -1
    entered = points[0].instances.boxes
    order = entered[:, 0].argsort()
    torch.testing.assert_close(entered[order], torch.tensor(boxes).float(), rtol=0, atol=1.0)
    mixed = image.trace(start=Start(boxes, time=499), proposals=20, steps=2)
    assert [points[0].time for points, _ in mixed] == [499, 249]


def test_times_are_visited_as_given(model: DiffusionInst, path: Path) -> None:
    image = model.encode(path)
    moments = list(image.trace(times=(800, 30, 0)))
    assert [points[0].time for points, _ in moments] == [800, 30, 0]
    assert moments[-1][1] == image.predict(times=(800, 30, 0))


def test_a_start_that_does_not_fit_is_refused(model: DiffusionInst, path: Path) -> None:
    start = Start([[0, 0, 9, 9]] * 5, time=10)
    with pytest.raises(ValueError, match="5 boxes, but 4 proposals"):
        model.predict(path, start=start, proposals=4)
    with pytest.raises(ValueError, match="a start is for one image"):
        model.predict([path, path], start=start)  # type: ignore[call-overload]


def test_a_model_can_be_called_and_says_what_it_is(model: DiffusionInst, path: Path) -> None:
    assert model(path, steps=2) == model.predict(path, steps=2)
    said = repr(model)
    assert "class 0, class 1, class 2" in said and "cpu" in said and "M parameters" in said
    assert "fp32" in repr(model.optimize("fp32"))


def test_an_encoded_image_follows_the_models_configuration(path: Path) -> None:
    model = DiffusionInst.from_preset("tiny")
    image = model.encode(path)
    model.config = model.config.updated(postprocess={"max_detections": 2, "threshold": 0.0})
    assert len(model.predict(image)) == 2
    model.config = model.config.updated(preprocess={"short_side": 64})
    with pytest.raises(ValueError, match="encoded on another device, or read or resized"):
        model.predict(image)
