"""Do exported files compute what the model computes, and are bad requests refused?"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import jaxtyping
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from torchvision.ops import nms

from diffinst import DiffusionInst
from diffinst.config import Config, ConfigError
from diffinst.export.about import FILES, Format, read_about
from diffinst.export.files import export
from diffinst.export.parity import compare, same_settings, to_instances
from diffinst.export.runtimes import load
from diffinst.export.unrolled import FixedModel, exported_inputs, plain_survivors
from diffinst.models.network import DiffusionInstNetwork
from diffinst.ops.boxes import class_nms

onnxruntime = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")
pytestmark = pytest.mark.usefixtures("unchecked_shapes")
SIZE = (90, 120)  # neither is a multiple of 32
RUNNER = Path(__file__).resolve().parents[2] / "examples" / "run_export.py"


@pytest.fixture(scope="module")
def coins() -> NDArray[np.uint8]:
    return np.ascontiguousarray(data.coins()[:180, :240])


@pytest.fixture(params=["one stage", pytest.param("shipped", marks=pytest.mark.slow)])
def small_or_shipped(request: pytest.FixtureRequest, nano: DiffusionInst) -> DiffusionInst:
    """Six stages take a minute to trace, one some seconds."""
    if request.param == "shipped":
        return nano
    model = random_model("grid", stages=1)  # its masks mean nothing, so they are not rated
    config = model.config.updated(postprocess={"mask_quality": 0.0, "mask_threshold": 0.5})
    return DiffusionInst(model.network, config)


def random_model(evaluate: str, stages: int = 2) -> DiffusionInst:
    """Scores that differ, so that the best few are the same ones everywhere."""
    filters = {"evaluate": evaluate, "coordinates": evaluate == "grid"}
    config = Config.from_preset("tiny").updated(
        model={"filters": filters, "decoder": {"stages": stages}},
        postprocess={
            "max_detections": 6,
            "threshold": 0.0,
            "mask_quality": 0.25 if evaluate == "grid" else 0.0,
            "mask_threshold": 0.3 if evaluate == "grid" else 0.5,  # no mask is empty
        },
    )
    torch.manual_seed(1)
    network = DiffusionInstNetwork(config.model).eval()
    for stage in network.decoder.stages:
        torch.nn.init.normal_(stage.get_parameter("class_logits.weight"), std=0.5)
        torch.nn.init.zeros_(stage.get_parameter("class_logits.bias"))
    return DiffusionInst(network, config)


@pytest.mark.parametrize("evaluate", ["map", "grid"])
@pytest.mark.parametrize(("steps", "kind"), [(1, "ddim"), (3, "ddim"), (3, "search")])
def test_the_fixed_function_is_what_predict_does(evaluate: str, steps: int, kind: str) -> None:
    model = random_model(evaluate)
    config = model.config.updated(
        sampler={"steps": steps, "proposals": 9, "kind": kind},
        preprocess={"short_side": None, "zoom": 1.0, "long_side": 200},
    )
    model = DiffusionInst(model.network, config)
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    wanted = model.predict(image)
    fixed = FixedModel(model.network, config, SIZE, postprocess=True)
    inputs = exported_inputs(image.transpose(2, 0, 1), config)
    assert ("renoise" in inputs) == (kind == "ddim" and steps > 1)
    with torch.inference_mode():
        outputs = list(fixed(**{k: torch.from_numpy(v) for k, v in inputs.items()}).values())
    assert [len(value) for value in outputs] == [6] * 4
    boxes, scores, labels, masks = (value[outputs[1] >= 0] for value in outputs)
    assert len(wanted) == len(boxes) >= 4
    torch.testing.assert_close(scores, wanted.scores)
    torch.testing.assert_close(boxes, wanted.boxes, rtol=1e-4, atol=1e-3)
    assert torch.equal(labels, wanted.labels)
    assert float((masks.bool() != wanted.masks).float().mean()) < 1e-3


@dataclass(frozen=True)
class Exported:
    model: DiffusionInst
    folder: Path


@pytest.fixture(scope="module", params=get_args(Format))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """One of each kind, 96 x 128, two steps; tracing takes longest, stage by stage and step."""
    to: Format = request.param
    model = random_model("map" if to == "onnx" else "grid", 2 if to == "torch-export" else 1)
    out = tmp_path_factory.mktemp("exported") / to
    jaxtyping.config.update("jaxtyping_disable", True)
    export(model, out, to, (96, 128), steps=2, proposals=20)
    jaxtyping.config.update("jaxtyping_disable", False)
    return Exported(model, out)


def names_in(folder: Path, to: Format) -> tuple[list[str], list[str]]:
    """What the runtime itself calls inputs and outputs."""
    if to == "onnx":
        session = onnxruntime.InferenceSession(folder / "model.onnx")
        return [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()]
    if to == "openvino":
        compiled = openvino.Core().compile_model(folder / "model.xml", "CPU")
        assert all(len(port.names) == 1 for port in (*compiled.inputs, *compiled.outputs))
        return [i.any_name for i in compiled.inputs], [o.any_name for o in compiled.outputs]
    specs = torch.export.load(folder / "model.pt2").call_spec
    return specs.in_spec.child(1).context, specs.out_spec.context


def test_an_exported_model_finds_the_same_instances(
    exported: Exported, coins: NDArray[np.uint8]
) -> None:
    model, out = exported.model, exported.folder
    about = read_about(out)
    assert (about.size, about.steps, about.proposals) == ((96, 128), 2, 20)
    assert about.inputs["renoise"] == (1, 1, 20, 4) and about.class_names[0] == "class 0"
    assert {p.name for p in out.iterdir()} == {*FILES[about.format], "export.json", "noise.npz"}
    found = compare(model, out, [coins, coins[:100].copy()])
    assert found.images == 2 and found.instances > 5
    assert found.same == found.instances and found.extra == 0
    assert f"{found.same} of {found.instances} confident" in str(found)


def test_inputs_and_outputs_have_the_names_that_are_said(exported: Exported) -> None:
    about = read_about(exported.folder)
    inputs, outputs = names_in(exported.folder, about.format)
    assert inputs == list(about.inputs) == ["image", "start", "renoise", "renewal"]
    assert outputs == list(about.outputs) == ["boxes", "scores", "labels", "masks"]
    with np.load(exported.folder / "noise.npz") as noise:
        assert {n: v.shape for n, v in noise.items()} == {n: about.inputs[n] for n in inputs[1:]}


ALONE = """
import runpy, sys
sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(",")))
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_example_runs_without_this_package(
    exported: Exported, coins: NDArray[np.uint8], tmp_path: Path
) -> None:
    about = read_about(exported.folder)
    Image.fromarray(coins[:96, :128]).convert("RGB").save(tmp_path / "in.png")
    absent = ["diffinst", "torchvision", "timm", "pydantic", "safetensors", "pycocotools"]
    absent += [] if about.format == "torch-export" else ["torch"]
    files = (RUNNER, exported.folder, tmp_path / "in.png", tmp_path / "out.png")
    run = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, ",".join(absent), *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    wanted = same_settings(exported.model, about).predict(tmp_path / "in.png")
    lines = [line.rsplit(" ", 6) for line in run.stdout.splitlines()]
    assert len(lines) == len(wanted) > 3
    assert [line[0] for line in lines] == [wanted.class_names[i] for i in wanted.labels]
    numbers = np.array([line[1:] for line in lines], dtype=float)
    np.testing.assert_allclose(numbers[:, 0], wanted.scores, atol=2e-3)
    np.testing.assert_allclose(numbers[:, 1:5], wanted.boxes, atol=0.2)
    np.testing.assert_allclose(numbers[:, 5], wanted.mask_crops.area(), rtol=0.01, atol=3)
    before, after = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("in", "out"))
    painted = (before != after).any(2)
    assert (painted != wanted.masks.any(0).numpy()).mean() < 0.01 < painted.mean()


def test_suppression_without_torchvision_is_the_same() -> None:
    class Plain(torch.nn.Module):
        def forward(self, boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            return plain_survivors(boxes, scores, 0.5)

    generator = torch.Generator().manual_seed(0)
    low = torch.rand(300, 2, generator=generator) * 20
    crowd = torch.cat([low, low + 1 + torch.rand(300, 2, generator=generator) * 8], 1)
    left = torch.arange(300.0) / 4  # each overlaps the two after it: a chain of 100 rounds
    chain = torch.stack([left, left * 0, left + 1, left * 0 + 1], 1)
    flat = torch.zeros(300, 4)
    scores = torch.rand(300, generator=generator)
    plain = torch.export.export(Plain(), (crowd, scores), strict=False).module()
    falling = torch.arange(300.0).flip(0)
    for boxes, values in ((crowd, scores), (chain, falling), (flat, falling), (crowd, flat[:, 0])):
        kept = nms(boxes, values, 0.5).sort().values
        assert torch.equal(plain(boxes, values).nonzero()[:, 0], kept)


def test_postprocessing_can_be_left_to_the_caller(
    small_or_shipped: DiffusionInst, coins: NDArray[np.uint8], tmp_path: Path
) -> None:
    model = small_or_shipped
    out = export(model, tmp_path, "onnx", (192, 256), steps=1, proposals=60, postprocess=False)
    assert read_about(out).outputs[-2:] == ("filters", "mask_features")
    assert names_in(out, "onnx") == (["image", "start"], list(read_about(out).outputs))
    found = compare(model, out, [coins])
    assert found.same == found.instances > 3 and found.extra == 0


def test_a_thousand_classes_are_kept_apart_as_exactly_as_in_float64() -> None:
    config = Config.from_preset("tiny").updated(model={"num_classes": 1203})
    fixed = FixedModel(DiffusionInstNetwork(config.model), config, (800, 1216), postprocess=True)
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(400, 2, generator=generator) * 8 + 1100  # many overlaps, a few pixels large
    boxes = torch.cat([low, low + 2 + torch.rand(400, 2, generator=generator)], 1)
    scores = torch.rand(400, generator=generator)
    for labels in (
        torch.full((400,), 1202),
        torch.randint(1190, 1203, (400,), generator=generator),
    ):
        kept = fixed._survivors(fixed._classes_apart(boxes, labels), scores)
        wanted = class_nms(boxes, scores, labels, fixed.nms_iou)
        differ = set(kept.nonzero()[:, 0].tolist()) ^ set(wanted.tolist())
        assert len(wanted) < 390 and len(differ) <= 0.1 * len(wanted)


def test_eight_bits_find_nearly_the_same(
    small_or_shipped: DiffusionInst, coins: NDArray[np.uint8], tmp_path: Path
) -> None:
    model, asked = small_or_shipped, {"steps": 1, "proposals": 60}
    out = export(model, tmp_path, "openvino", (192, 256), calibration=[coins], **asked)  # type: ignore[arg-type]
    assert read_about(out).int8
    assert "i8" in (out / "model.xml").read_text()
    found = compare(model, out, [coins])
    assert found.same >= 0.6 * found.instances > 3 and found.extra <= 0.4 * found.instances


def test_early_stop_is_refused(tmp_path: Path) -> None:
    config = Config.from_preset("tiny").updated(sampler={"early_stop": 0.9})
    model = DiffusionInst(DiffusionInstNetwork(config.model), config)
    with pytest.raises(ConfigError, match="early_stop cannot be exported"):
        export(model, tmp_path / "out", "onnx", (64, 64), steps=2)
    assert not (tmp_path / "out").exists()


def test_parity_notices_another_model(coins: NDArray[np.uint8], tmp_path: Path) -> None:
    model = random_model("grid")
    out = export(model, tmp_path, "torch-export", (96, 128), steps=1, proposals=20)
    assert compare(model, out, [coins]).same > 3
    for stage in model.network.decoder.stages:
        stage.filters.bias.data += 3  # type: ignore[operator, union-attr]
    found = compare(model, out, [coins])
    assert found.same < found.instances and found.extra > 0


def test_nothing_seen_is_an_empty_result(tmp_path: Path) -> None:
    model = random_model("grid", stages=1)
    out = export(model, tmp_path, "torch-export", (64, 64), steps=1, proposals=5)
    about, run = read_about(out), load(out)
    inputs = {name: np.zeros(shape, np.float32) for name, shape in about.inputs.items()}
    found = to_instances(run(**inputs), about, model)
    assert len(found) == 1  # five equal boxes
    boxes, scores, labels, masks = run(**inputs)
    empty = to_instances([boxes, scores * 0 - 1, labels, masks], about, model)
    assert len(empty) == 0 and empty.image_size == (64, 64)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"to": "tflite"}, ValueError, "--to tflite: there are torch-export, onnx, openvino"),
        ({"size": (0, 5)}, ValueError, "at least 1"),
        ({"steps": 1001}, ConfigError, "sampler.steps is 1001"),
        ({"proposals": 0}, ConfigError, "proposals"),
        ({"calibration": ["a.png"]}, ValueError, "--int8 is for openvino; onnx gets float32"),
    ],
)
def test_bad_requests_are_refused(
    wrong: dict[str, object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    model = DiffusionInst.from_preset("tiny")
    asked = {"to": "onnx", "size": (64, 64), **wrong}
    with pytest.raises(error, match=message):
        export(model, tmp_path / "out", **asked)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"onnx needs the package onnxscript: pip install"):
        export(DiffusionInst.from_preset("tiny"), tmp_path / "out", "onnx", (64, 64), proposals=10)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="write the folder with `diffinst export`"):
        load(tmp_path)
