"""The whole model, trained one step and sampled, against the reference numbers (see its README)."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffinst.config import Config, Options
from diffinst.diffusion.noise import Noise
from diffinst.diffusion.signal import Corruption
from diffinst.inference.pipeline import Pipeline, Step
from diffinst.ops.boxes import class_nms
from diffinst.structures import Encoded, Targets
from diffinst.training.criterion import Criterion
from diffinst.training.matcher import FREE
from diffinst.training.step import StepOutput, TrainingStep

pytestmark = pytest.mark.golden

LOGITS, BOXES, FILTERS, MASK_FEATURES, SCORES = 2e-3, 5e-2, 1e-3, 1e-4, 1e-3
PYRAMID = 1e-4
SIGNAL = 2e-3  # a box limit in signal: 0.05 px of a 200 px image, times 2 s
MASK_IOU, MASK_SHARE = 0.98, 1e-3
LOSS, GRADIENT_NORM, GRADIENT_VALUE, STATISTICS = 1e-4, 1e-2, 3e-2, 1e-4
ORDER = 1e-4  # scores this close may swap places
TERMS = {"ce": "class", "bbox": "l1", "giou": "giou", "masks": "dice"}

Arrays = dict[str, NDArray[Any]]
Record = Callable[[str, object], None]


def check(name: str, found: Tensor, wanted: NDArray[Any], limit: float, record: Record) -> None:
    """Largest absolute difference, kept in the report."""
    expected = torch.from_numpy(np.asarray(wanted))
    assert found.shape == expected.shape, name
    worst = (
        float((found.detach().double() - expected.double()).abs().max()) if found.numel() else 0.0
    )
    record(name, worst)
    assert worst <= limit, f"{name} differs by {worst:.2e}, allowed are {limit:.0e}"


# --- one training step ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """A training step that was run backwards, beside what the reference stored."""

    arrays: Arrays
    norms: dict[str, float]
    output: StepOutput
    gradients: dict[str, Tensor | None]
    state: dict[str, Tensor]
    ours: dict[str, str]
    thinned: Callable[[Tensor, tuple[int, ...]], Tensor]


@pytest.fixture(scope="module")
def trained(reference: Any, training_file: str) -> Trained:
    arrays = reference.arrays(training_file)
    meta = json.loads(str(arrays["meta"]))
    filled = reference.filled(meta)
    network, count = filled.network.train(), len(meta["sizes"])
    sizes = [(h, w) for h, w in meta["sizes"]]
    images = reference.batch([int(arrays[f"im{i}_image_seed"]) for i in range(count)], sizes)
    targets, draws = [], []
    for i, size in enumerate(sizes):
        labels = torch.from_numpy(arrays[f"im{i}_gt_labels"])
        targets.append(
            Targets(
                boxes=torch.from_numpy(arrays[f"im{i}_gt_boxes_xyxy"]),
                labels=labels,
                masks=reference.unpack(arrays[f"im{i}_gt_masks_packed"], size),
            )
        )
        draws.append(
            Corruption(
                t=int(arrays[f"im{i}_t"]),
                noise=torch.from_numpy(arrays[f"im{i}_noise"]),
                placeholder=torch.from_numpy(arrays[f"im{i}_placeholder_normal"]),
                order=torch.arange(len(labels)),
            )
        )
    counts = torch.ones(meta["num_classes"])  # only draw classes, and those are given
    step = TrainingStep(network, Criterion(filled.config.criterion, counts), meta["num_proposals"])
    stages = filled.config.model.decoder.stages
    federated = None
    if "s0_fed_classes" in arrays:
        federated = [torch.from_numpy(arrays[f"s{s}_fed_classes"]) for s in range(stages)]
    output = step(images, targets, draws, federated=federated)
    output.losses["loss"].backward()
    gradients = {
        key: None if p.grad is None else p.grad.clone() for key, p in network.named_parameters()
    }
    state = {key: value.clone() for key, value in network.mask_branch.state_dict().items()}
    norms_file = reference.folder / training_file.replace(".npz", "_gradnorm.json")
    norms = json.loads(norms_file.read_text())
    losses = {key: value.detach() for key, value in output.losses.items()}
    return Trained(
        arrays,
        {**norms["grad_norms"], "": norms["total_norm"]},
        replace(output, losses=losses),
        gradients,
        state,
        filled.ours,
        reference.subsampled,
    )


def test_step_denoises_the_same_boxes(trained: Trained, record_property: Record) -> None:
    arrays, output = trained.arrays, trained.output
    last = output.stages[-1]
    check("start", output.start, arrays["init_boxes_abs"], BOXES, record_property)
    boxes = torch.stack([stage.boxes for stage in output.stages])
    check("all boxes", boxes, arrays["all_boxes"], BOXES, record_property)
    logits = trained.thinned(last.logits, arrays["last_logits"].shape)
    check("last logits", logits, arrays["last_logits"], LOGITS, record_property)
    filters = trained.thinned(last.filters, arrays["last_kernels"].shape)
    check("last filters", filters, arrays["last_kernels"], FILTERS, record_property)
    mask_features = output.encoded.mask_features
    check("F_mask", mask_features, arrays["mask_feat"], MASK_FEATURES, record_property)


def test_step_matches_the_same_pairs(trained: Trained) -> None:
    owner = trained.output.match.owner
    for s in range(owner.shape[0]):
        for i in range(owner.shape[1]):
            taken = owner[s, i] != FREE
            assert np.array_equal(taken.numpy(), trained.arrays[f"s{s}_im{i}_selected"])
            indices = trained.arrays[f"s{s}_im{i}_gt_indices"]
            assert np.array_equal(owner[s, i][taken].numpy(), indices)


def test_step_has_the_same_losses(trained: Trained, record_property: Record) -> None:
    losses, checked, worst = trained.output.losses, set(), 0.0
    for key, wanted in trained.arrays.items():
        if not key.startswith("loss_"):
            continue
        name = "loss"
        if key != "loss_total":
            term, _, stage = key.removeprefix("loss__loss_").partition("_")
            name = f"loss/{TERMS[term]}" + (f"_stage{stage}" if stage else "")
        assert float(losses[name]) == pytest.approx(float(wanted), rel=LOSS, abs=1e-6), name
        worst = max(worst, abs(float(losses[name]) / max(float(wanted), 1e-6) - 1))
        checked.add(name)
    record_property("losses (relative)", worst)
    assert checked == set(losses)


def test_step_moves_the_batch_statistics(trained: Trained, record_property: Record) -> None:
    stored = [key for key in trained.arrays if key.startswith("bn_after__")]
    assert stored
    for key in stored:
        ours = trained.ours[key.removeprefix("bn_after__")].removeprefix("mask_branch.")
        check(ours, trained.state[ours].double(), trained.arrays[key], STATISTICS, record_property)


def test_step_has_the_same_gradient_norms(trained: Trained, record_property: Record) -> None:
    norms = {trained.ours[key]: norm for key, norm in trained.norms.items() if key}
    total, worst = trained.norms[""], (0.0, "")
    for name, gradient in trained.gradients.items():
        found = 0.0 if gradient is None else float(gradient.double().norm())
        if name not in norms:  # frozen there
            assert gradient is None, name
            continue
        assert found == pytest.approx(norms[name], rel=GRADIENT_NORM, abs=1e-7 * total), name
        if norms[name] > 1e-7 * total:
            worst = max(worst, (abs(found / norms[name] - 1), name))
    assert set(norms) <= set(trained.gradients)
    record_property("gradient norms (relative)", worst)
    present = [g.double().norm() for g in trained.gradients.values() if g is not None]
    assert float(torch.stack(present).norm()) == pytest.approx(total, rel=GRADIENT_NORM)


def test_step_has_the_same_gradient_values(trained: Trained, record_property: Record) -> None:
    sampled = [key for key in trained.arrays if key.startswith("gradval__")]
    assert sampled
    for key in sampled:
        name, wanted = key.removeprefix("gradval__"), trained.arrays[key]
        gradient = trained.gradients[trained.ours[name]]
        assert gradient is not None, name
        found = gradient.flatten()[torch.from_numpy(trained.arrays[f"gradidx__{name}"])]
        scale = max(float(np.abs(wanted).max()), 1e-12)
        check(name, found / scale, wanted / scale, GRADIENT_VALUE, record_property)


# --- sampling ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampled:
    """A run of the sampler with the stored draws, beside what the reference stored."""

    arrays: Arrays
    encoded: Encoded
    steps: list[Step]
    pipeline: Pipeline
    unpack: Callable[[NDArray[Any], tuple[int, int]], Tensor]
    thinned: Callable[[Tensor, tuple[int, ...]], Tensor]


@pytest.fixture(scope="module")
def sampled(reference: Any, inference_file: str) -> Sampled:
    arrays = reference.arrays(inference_file)
    meta = json.loads(str(arrays["meta"]))
    network = reference.filled(meta).network
    options = Options(
        steps=meta["steps"],
        proposals=meta["num_proposals"],
        ensemble="official",
        threshold=0.0,
        max_detections=10**6,
    )
    pipeline = Pipeline(network, Config(), options)
    sizes = [(int(h), int(w)) for h, w in arrays["image_hw"]]
    start = torch.from_numpy(arrays["init_noise"])
    none = torch.zeros(0, *start.shape)
    renoise, renewal = (
        torch.from_numpy(arrays[key]) if key in arrays else none for key in ("renoise", "replenish")
    )
    with torch.inference_mode():
        encoded = network.encode(reference.batch(arrays["image_seeds"].tolist(), sizes))
        steps = list(pipeline.run(encoded, Noise(start, renoise, renewal)))
    return Sampled(arrays, encoded, steps, pipeline, reference.unpack, reference.subsampled)


def test_encoding_gives_the_same_maps(sampled: Sampled, record_property: Record) -> None:
    encoded, arrays = sampled.encoded, sampled.arrays
    check("F_mask", encoded.mask_features, arrays["mask_feat"], MASK_FEATURES, record_property)
    p5 = encoded.pyramid.maps[-1]
    pyramid = (*encoded.pyramid.maps, p5[..., ::2, ::2])  # p6 is p5 thinned out
    for level, feature in enumerate(pyramid, start=2):
        key = f"fpn_p{level}"
        assert list(feature.shape) == arrays[f"{key}_shape"].tolist()
        values = feature.flatten()[torch.from_numpy(arrays[f"{key}_idx"])]
        check(key, values, arrays[f"{key}_val"], PYRAMID, record_property)
        moments = torch.stack([feature.mean(), feature.std(correction=0)])
        check(f"{key} moments", moments, arrays[f"{key}_mean_std"], PYRAMID, record_property)


def test_every_step_gives_the_same_boxes(sampled: Sampled, record_property: Record) -> None:
    arrays, several = sampled.arrays, len(sampled.steps) > 1
    for step in sampled.steps:
        key, last = f"step{step.index}_", step.stages[-1]
        assert (arrays[f"{key}time"] == step.time).all()
        check(f"{key}x_t", step.x_t, arrays[f"{key}x_in"], SIGNAL, record_property)
        check(f"{key}start", step.boxes, arrays[f"{key}init_boxes_abs"], BOXES, record_property)
        found = {"boxes": last.boxes, "logits": last.logits, "kernels": last.filters}
        if several and step.index == len(sampled.steps) - 1:
            # Enters no result; one proposal may have a RoI sample on the cliff at -1 (README.md)
            steady = (last.boxes - torch.from_numpy(arrays[f"{key}last_boxes"])).abs().amax((0, 2))
            steady = steady <= BOXES
            assert int((~steady).sum()) <= max(1, len(steady) // 100)
        else:
            steady = torch.ones(last.boxes.shape[1], dtype=torch.bool)
        for name, limit in {"boxes": BOXES, "logits": LOGITS, "kernels": FILTERS}.items():
            if f"{key}last_{name}" in arrays:
                wanted = arrays[f"{key}last_{name}"]
                value = sampled.thinned(found[name], wanted.shape)[:, steady]
                check(f"{key}{name}", value, wanted[:, steady.numpy()], limit, record_property)
        if f"{key}keep" in arrays:
            same = step.kept[0].numpy() == arrays[f"{key}keep"]
            assert same[steady.numpy()].all()


@pytest.mark.needs("all_boxes")  # stored for runs of one step
def test_every_stage_gives_the_same_boxes(sampled: Sampled, record_property: Record) -> None:
    stages = sampled.steps[0].stages
    boxes = torch.stack([stage.boxes for stage in stages])
    check("all boxes", boxes, sampled.arrays["all_boxes"], BOXES, record_property)
    wanted = sampled.arrays["mid_logits_stage0"]
    logits = sampled.thinned(stages[0].logits, wanted.shape)
    check("stage 0 logits", logits, wanted, LOGITS, record_property)


Scored = tuple[Tensor, Tensor, Tensor]  # boxes, scores, labels


def matched(found: Scored, wanted: Scored, name: str, record: Record) -> Tensor:
    """For each wanted box the found one of its class that is most like it, one to one."""
    assert len(found[0]) == len(wanted[0]), name
    boxes = (wanted[0][:, None] - found[0][None]).abs().amax(-1)
    scores = (wanted[1][:, None] - found[1][None]).abs()
    unlike = torch.maximum(boxes / BOXES, scores / SCORES)
    unlike = unlike.masked_fill(wanted[2][:, None] != found[2][None], torch.inf)
    index = unlike.argmin(1)
    assert len(index.unique()) == len(index), f"{name}: two wanted boxes have the same likeness"
    check(f"{name}: boxes", found[0][index], wanted[0].numpy(), BOXES, record)
    check(f"{name}: scores", found[1][index], wanted[1].numpy(), SCORES, record)
    assert torch.equal(found[2][index], wanted[2])
    return index


@pytest.mark.needs("nms_keep")  # stored for single images
def test_nms_sees_and_keeps_the_same(sampled: Sampled, record_property: Record) -> None:
    arrays, found = sampled.arrays, sampled.steps[-1].candidates
    boxes, scores, labels = (
        torch.from_numpy(arrays[f"nms_in_{name}"]) for name in ("boxes", "scores", "labels")
    )
    entered = (found.boxes[0], found.scores[0], found.labels[0])
    matched(entered, (boxes, scores, labels), "into NMS", record_property)
    keep = torch.from_numpy(arrays["nms_keep"])
    kept = class_nms(*entered, sampled.pipeline.options.nms_iou)
    left = (entered[0][kept], entered[1][kept], entered[2][kept])
    matched(left, (boxes[keep], scores[keep], labels[keep]), "out of NMS", record_property)


@pytest.mark.parametrize("output", ["out_same", "out_diff"])
def test_instances_are_the_same(sampled: Sampled, output: str, record_property: Record) -> None:
    differing = pixels = 0
    lowest = 1.0
    for image in range(len(sampled.encoded)):
        wanted = {
            name: torch.from_numpy(sampled.arrays[f"{output}_im{image}_{name}"])
            for name in ("hw", "boxes", "scores", "classes")
        }
        size = (int(wanted["hw"][0]), int(wanted["hw"][1]))
        with torch.inference_mode():
            found = sampled.pipeline.instances(
                sampled.steps[-1].candidates, sampled.encoded, image, size
            )
        index = matched(
            (found.boxes, found.scores, found.labels),
            (wanted["boxes"], wanted["scores"], wanted["classes"]),
            f"image {image}",
            record_property,
        )
        in_our_order = wanted["scores"][index.argsort()]
        assert bool((in_our_order.diff() <= ORDER).all()), "another order"
        packed = sampled.arrays[f"{output}_im{image}_masks_packed"]
        masks, theirs = found.masks[index], sampled.unpack(packed, size)
        counted = outside_flipped_edges(found.boxes[index], wanted["boxes"], size)
        unlike = (masks != theirs) & counted
        differing, pixels = differing + int(unlike.sum()), pixels + int(counted.sum())
        union = ((masks | theirs) & counted).flatten(1).sum(1)
        # of a mask below 50 pixels, one at the threshold is more than MASK_IOU leaves
        beyond_one = (unlike.flatten(1).sum(1) - 1).clamp(min=0)
        share = 1 - beyond_one / union.clamp(min=1)
        lowest = min(lowest, float(share.min()) if len(share) else 1.0)
    record_property("lowest mask IoU, one pixel forgiven", lowest)
    record_property("differing mask pixels", f"{differing} of {pixels}")
    assert lowest >= MASK_IOU
    assert differing <= MASK_SHARE * pixels


def outside_flipped_edges(boxes: Tensor, wanted: Tensor, size: tuple[int, int]) -> Tensor:
    """(n, h, w) False in the row or column that flips where a box edge crosses a whole number."""
    counted = torch.ones(len(boxes), *size, dtype=torch.bool)
    first = torch.minimum(boxes.floor(), wanted.floor()).long()
    flipped = boxes.floor() != wanted.floor()
    for i, side in flipped.nonzero().tolist():
        line = int(first[i, side])
        if side % 2:
            counted[i, line] = False
        else:
            counted[i, :, line] = False
    return counted
