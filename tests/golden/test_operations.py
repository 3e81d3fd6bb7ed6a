"""Do the single operations give the reference's numbers (sets 01 to 07 and 10 of its folder)?

Everything is read from the files: sizes, class counts, numbers of cases and stages, prefixes. The
limits are those of the reference's README; "relative" means to the largest number of the tensor.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffinst.config import (
    Config,
    CriterionConfig,
    DecoderConfig,
    DiffusionConfig,
    MaskBranchConfig,
    MatcherConfig,
    Options,
)
from diffinst.diffusion.schedule import Schedule, cosine_schedule, time_pairs
from diffinst.diffusion.signal import Corruption, corrupt, from_signal, kept_objects
from diffinst.diffusion.solvers.ddim import Ddim
from diffinst.inference.pipeline import Pipeline
from diffinst.models.decoder import Decoder, sinusoidal_embedding
from diffinst.models.decoder_stage import DecoderStage
from diffinst.models.mask_branch import LEVELS, MaskBranch
from diffinst.models.network import DiffusionInstNetwork
from diffinst.ops.filters import FilterLayout, apply_filters
from diffinst.ops.masks import aligned_bilinear
from diffinst.ops.roi_align import assign_levels, pool
from diffinst.structures import Candidates, Encoded, Pyramid, StageOutput, Targets
from diffinst.training.criterion import Criterion
from diffinst.training.matcher import FREE, dynamic_k_match, matching_cost
from diffinst.training.pairs import Match, PackedTargets
from diffinst.weights.names import STAGE_RENAMES

pytestmark = pytest.mark.golden


class Arrays:
    """One file of the reference: tensors, numbers and JSON texts by name, below a prefix."""

    def __init__(self, content: dict[str, np.ndarray], prefix: str = "") -> None:
        self.content, self.prefix = content, prefix

    @classmethod
    def load(cls, path: Path) -> Arrays:
        with np.load(path) as file:
            return cls({name: file[name] for name in file.files})

    def below(self, prefix: str) -> Arrays:
        return Arrays(self.content, self.prefix + prefix)

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.content

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(np.array(self.content[self.prefix + name]))

    def text(self, name: str) -> str:
        return str(self.content[self.prefix + name])

    def size(self, name: str) -> tuple[int, int]:
        height, width = self[name].tolist()
        return height, width

    def numbered(self, pattern: str) -> list[int]:
        """The different numbers that the group in `pattern` takes in the names."""
        found = (re.match(self.prefix + pattern, name) for name in self.content)
        return sorted({int(match[1]) for match in found if match})

    def pyramid(self) -> tuple[Tensor, ...]:
        return tuple(self[f"p{level}"] for level in self.numbered(r"p(\d)$"))

    def masks(self, name: str, size: tuple[int, int]) -> Tensor:
        count = size[0] * size[1]
        bits = np.unpackbits(self.content[self.prefix + name], axis=1)[:, :count]
        return torch.from_numpy(bits.reshape(len(bits), *size).astype(bool))


def check(
    what: str,
    actual: Tensor | None,
    wanted: Tensor,
    relative: float = 1e-5,
    absolute: float = 0.0,
) -> None:
    assert actual is not None, what
    assert actual.shape == wanted.shape, f"{what}: {tuple(actual.shape)}, {tuple(wanted.shape)}"
    if not wanted.numel():
        return
    worst = float((actual.detach().double() - wanted.double()).abs().max())
    limit = relative * float(wanted.double().abs().max()) + absolute
    assert worst <= limit, f"{what}: off by {worst:.3g}, allowed {limit:.3g}"


# 01: the schedule


def posterior(schedule: Schedule, x_t: float, x_start: float, noise: float) -> Tensor:
    """One DDPM step from each t to t - 1: DDIM with eta 1 between neighbours."""
    values = [torch.full((1, 4), v, dtype=torch.float64) for v in (x_t, x_start, noise)]
    steps = [
        Ddim(eta=1.0).step(*values, now=t, following=t - 1, schedule=schedule)[0, 0]
        for t in range(1, len(schedule))
    ]
    return torch.stack(steps)


def test_schedule_tables(reference_dir: Path) -> None:
    file = Arrays.load(reference_dir / "01_schedule.npz")
    count = len(file["betas"])
    schedule = cosine_schedule(count)
    t = torch.arange(count)
    zeros, ones = torch.zeros(count, 1), torch.ones(count, 1)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    of_x_t = torch.cat([schedule.predict_noise(one, zero, i) for i in range(count)])
    of_x_start = torch.cat([schedule.predict_noise(zero, one, i) for i in range(count)])
    noise_share = schedule.add_noise(zeros, ones, t)[:, 0]
    tables = {
        "betas": schedule.betas,
        "alphas_cumprod": schedule.alphas_cumprod,
        "alphas_cumprod_prev": torch.cat([one, schedule.alphas_cumprod[:-1]]),
        "sqrt_alphas_cumprod": schedule.add_noise(ones, zeros, t)[:, 0],
        "sqrt_one_minus_alphas_cumprod": noise_share,
        "log_one_minus_alphas_cumprod": 2 * noise_share.log(),
        "sqrt_recipm1_alphas_cumprod": -1 / of_x_start,
        "sqrt_recip_alphas_cumprod": -of_x_t / of_x_start,
    }
    for name, table in tables.items():
        torch.testing.assert_close(table.double(), file[name], rtol=1e-12, atol=1e-15)


def test_schedule_posterior_is_one_ddim_step(reference_dir: Path) -> None:
    file = Arrays.load(reference_dir / "01_schedule.npz")
    schedule = cosine_schedule(len(file["betas"]))
    variance = posterior(schedule, 0, 0, 1) ** 2
    tables = {
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.log(),
        "posterior_mean_coef1": posterior(schedule, 0, 1, 0),
        "posterior_mean_coef2": posterior(schedule, 1, 0, 0),
    }
    for name, table in tables.items():
        check(name, table, file[name][1:], relative=1e-9)


def test_times(reference_dir: Path) -> None:
    file = Arrays.load(reference_dir / "01_schedule.npz")
    counts = file.numbered(r"times_(\d+)$")
    assert counts
    for steps in counts:
        pairs = time_pairs(steps, len(file["betas"]))
        assert [now for now, _ in pairs] == file[f"times_{steps}"].tolist()[:-1]
        assert [following for _, following in pairs] == file[f"times_{steps}"].tolist()[1:]


def test_sinusoid(reference_dir: Path) -> None:
    file = Arrays.load(reference_dir / "01_schedule.npz")
    for width in file.numbered(r"sinusoidal_emb_(\d+)$"):
        times = file["sinusoidal_t"]
        embedding = sinusoidal_embedding(times, width)
        # CPUs differ in the last bit of exp, which moves an angle of 999 by its spacing, 6e-5
        last_bit = float(np.spacing(np.float32(times.max())))
        check(f"width {width}", embedding, file[f"sinusoidal_emb_{width}"], absolute=last_bit)


# 02: forward diffusion


def test_forward_diffusion(reference_dir: Path) -> None:
    file = Arrays.load(reference_dir / "02_forward_diffusion.npz")
    config = DiffusionConfig(scale=float(file["scale"]))
    schedule = cosine_schedule(config.timesteps)
    proposals = int(file["num_proposals"])
    for i in range(int(file["num_cases"])):
        case = file.below(f"c{i:02d}_")
        boxes_norm, order = case["gt_cxcywh"], torch.zeros(0, dtype=torch.int64)
        if "keep_mask" in case:  # the kept first, backwards: only the choice may matter
            keep = case["keep_mask"]
            order = torch.cat([keep.nonzero().flip(0), (~keep).nonzero()])[:, 0]
        boxes_norm = boxes_norm[kept_objects(len(boxes_norm), proposals, order)]
        placeholder = torch.zeros(0, 4)
        if "placeholder_normal" in case:
            placeholder = case["placeholder_normal"]
        draws = Corruption(int(case["t"]), case["noise"], placeholder, order)
        x_start, x_t = corrupt(boxes_norm, draws, schedule, config)
        check(f"{case.prefix} x_start", x_start, case["x_start_scaled"])
        check(f"{case.prefix} x_t", x_t, case["x_t"])
        boxes = from_signal(case["x_t"], torch.ones(4), config)
        check(f"{case.prefix} boxes", boxes, case["boxes_xyxy_norm"])


# 03: RoI features


def test_roi_levels_and_features(reference_dir: Path) -> None:
    file = Arrays.load(reference_dir / "03_roi_pool.npz")
    boxes, wanted, pyramid = file["boxes"], file["pooled"], file.pyramid()
    levels = assign_levels(boxes, len(pyramid))
    assert levels.flatten().tolist() == file["level"].tolist()
    pooled = pool(Pyramid.of(pyramid), boxes, wanted.shape[-1], DecoderConfig().roi_sampling)
    check("pooled", pooled, wanted.flatten(3).transpose(2, 3))


# 04: decoder and mask branch


def decoder_key(key: str) -> str:
    """Our decoder's key in the full model of the reference."""
    part, number, rest = key.split(".", 2)
    if part == "time":
        return f"head.time_mlp.{ {'0': 1, '2': 3}[rest.split('.')[0]] }.{rest.split('.')[1]}"
    for theirs, ours in STAGE_RENAMES.items():
        if rest.startswith(ours):
            rest = theirs + rest.removeprefix(ours)
            break
    return f"head.head_series.{number}.{rest}"


def mask_branch_key(key: str, depth: int) -> str:
    names = {"refine": "mask_refine", "tower": "mask_head", "out": f"mask_head.{depth}"}
    part, rest = key.split(".", 1)
    return f"head.{names[part]}.{rest}"


def recipe_of(reference_dir: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("recipe", reference_dir / "recipe.py")
    assert spec is not None and spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    return recipe


def fill(module: nn.Module, names: dict[str, str], recipe: ModuleType) -> None:
    """Give every tensor of the module the recipe's weights of its reference name."""
    state = {k: recipe.weight(names[k], tuple(v.shape)) for k, v in module.state_dict().items()}
    state = {k: torch.from_numpy(v) for k, v in state.items() if v is not None}
    left = module.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in left.missing_keys)


class TinyHead:
    """Set 04 with our decoder and mask branch, filled by the recipe."""

    def __init__(self, reference_dir: Path) -> None:
        self.file = Arrays.load(reference_dir / "04_tiny_head.npz")
        sizes = json.loads(self.file.text("cfg"))
        self.queries_shape = (sizes["BATCH"], sizes["NUM_PROPOSALS"], sizes["HIDDEN_DIM"])
        config = DecoderConfig(
            stages=sizes["NUM_HEADS"],
            width=sizes["HIDDEN_DIM"],
            dynamic_width=sizes["DIM_DYNAMIC"],
            heads=sizes["NHEADS"],
            feedforward=sizes["DIM_FEEDFORWARD"],
            roi_size=self.file["roi_features"].shape[-1],
        )
        recipe = recipe_of(reference_dir)
        filter_size = self.file["stages_kernel"].shape[-1]
        self.decoder = Decoder(config, sizes["NUM_CLASSES"], filter_size).eval()
        fill(self.decoder, {k: decoder_key(k) for k in self.decoder.state_dict()}, recipe)
        branch = MaskBranchConfig(
            width=len(self.file["bn0_running_mean_after"]), channels=self.file["mask_feat"].shape[1]
        )
        self.mask_branch = MaskBranch(sizes["HIDDEN_DIM"], branch).eval()
        keys = self.mask_branch.state_dict()
        fill(self.mask_branch, {k: mask_branch_key(k, branch.depth) for k in keys}, recipe)
        self.pyramid = Pyramid.of(self.file.pyramid())

    def stage(self, index: int, boxes: Tensor, queries: Tensor | None) -> StageOutput:
        if queries is not None:
            queries = queries.view(self.queries_shape)
        output = self.part(index)(self.pyramid, boxes, queries, self.file["time_emb"])
        assert isinstance(output, StageOutput)
        return output

    def part(self, index: int) -> DecoderStage:
        stage = self.decoder.stages[index]
        assert isinstance(stage, DecoderStage)
        return stage


@pytest.fixture(scope="module")
def tiny_head(reference_dir: Path) -> TinyHead:
    return TinyHead(reference_dir)


@torch.no_grad()
def test_time_embedding(tiny_head: TinyHead) -> None:
    file = tiny_head.file
    check("time", tiny_head.decoder.time(file["t"]), file["time_emb"])


@torch.no_grad()
def test_dynamic_convolution(tiny_head: TinyHead) -> None:
    file = tiny_head.file
    wanted = file["roi_features"].flatten(2).transpose(1, 2)  # (B * N, cells, D)
    config = tiny_head.part(0).config
    rois = pool(tiny_head.pyramid, file["boxes"], config.roi_size, config.roi_sampling)
    check("RoI features", rois.flatten(0, 1), wanted)
    mixed = tiny_head.part(0).interaction(file["dc_pro_features"][0], wanted)
    check("DynamicConv", mixed, file["dc_out"])


def check_stage(
    what: str, output: StageOutput, wanted: dict[str, Tensor], relative: float, pixels: float
) -> None:
    check(f"{what} logits", output.logits, wanted["logits"], relative)
    check(f"{what} boxes", output.boxes, wanted["boxes"], 0, pixels)
    check(f"{what} filters", output.filters, wanted["kernel"], relative)
    check(f"{what} queries", output.queries.flatten(0, 1)[None], wanted["obj"], relative)


@torch.no_grad()
@pytest.mark.parametrize("given", [False, True])
def test_one_stage(tiny_head: TinyHead, given: bool) -> None:
    file = tiny_head.file
    queries = file["dc_pro_features"] if given else None
    prefix = "rcnn_given_" if given else "rcnn_none_"
    wanted = {name: file[prefix + name] for name in ("logits", "boxes", "kernel", "obj")}
    check_stage(prefix, tiny_head.stage(0, file["boxes"], queries), wanted, 1e-5, 2e-4)


def stage_numbers(file: Arrays, index: int) -> dict[str, Tensor]:
    return {name: file[f"stages_{name}"][index] for name in ("logits", "boxes", "kernel", "obj")}


@torch.no_grad()
def test_every_stage_from_stored_inputs(tiny_head: TinyHead) -> None:
    file = tiny_head.file
    boxes, queries = file["boxes"], None
    for i in range(len(file["stages_boxes"])):
        wanted = stage_numbers(file, i)
        check_stage(f"stage {i}", tiny_head.stage(i, boxes, queries), wanted, 1e-5, 2e-4)
        boxes, queries = wanted["boxes"], wanted["obj"]


@torch.no_grad()
def test_stages_chained(tiny_head: TinyHead) -> None:
    file = tiny_head.file
    outputs = tiny_head.decoder(tiny_head.pyramid, file["boxes"], file["t"])
    assert len(outputs) == len(file["stages_boxes"])
    for i, output in enumerate(outputs):  # rounding is amplified from stage to stage
        relative, pixels = (1e-3, 1e-2) if i < 3 else (3e-2, 0.2)
        check_stage(f"stage {i}", output, stage_numbers(file, i), relative, pixels)


@torch.no_grad()
def test_mask_branch(tiny_head: TinyHead) -> None:
    file, branch = tiny_head.file, tiny_head.mask_branch
    pyramid = file.pyramid()
    check("F_mask", branch(pyramid), file["mask_feat"])
    for i in range(LEVELS):
        refined = branch.refine[i](pyramid[i])
        measured = torch.stack([refined.mean(), refined.std()])
        check(f"level {i}", measured, file[f"mask_refine{i}_mean_std"])
    before = {k: v.clone() for k, v in branch.state_dict().items()}
    check("F_mask, train mode", branch.train()(pyramid), file["mask_feat_train_mode"])
    mean, var = (branch.get_buffer(f"refine.0.1.running_{name}") for name in ("mean", "var"))
    check("running mean", mean, file["bn0_running_mean_after"])
    check("running var", var, file["bn0_running_var_after"])
    branch.load_state_dict(before)
    branch.eval()


# 05: filters


def layout_of(filter_size: int, channels: int) -> FilterLayout:
    """The paper's layout with as many layers as the length of a filter says."""
    layouts = [FilterLayout(channels, channels, layers) for layers in range(1, 9)]
    return next(layout for layout in layouts if layout.size == filter_size)


def test_aligned_bilinear(reference_dir: Path) -> None:
    file = Arrays.load(reference_dir / "05_mask_head.npz")
    for i in file.numbered(r"ab(\d+)_in$"):
        for factor in file.numbered(rf"ab{i}_x(\d+)$"):
            enlarged = aligned_bilinear(file[f"ab{i}_in"], factor)
            check(f"ab{i}_x{factor}", enlarged, file[f"ab{i}_x{factor}"])


def test_filters(reference_dir: Path) -> None:
    file = Arrays.load(reference_dir / "05_mask_head.npz")
    filters, maps = file["params"], file["mask_feat"]
    layout = layout_of(filters.shape[1], maps.shape[1])
    for i, (weight, bias) in enumerate(layout.split(filters)):
        assert torch.equal(weight.flatten(1), file[f"w{i}"].flatten(1))
        assert torch.equal(bias.flatten(), file[f"b{i}"].flatten())
    points = maps[0].flatten(1)
    wanted = file["logits"].flatten(1)
    check("shared points", apply_filters(points, filters, layout), wanted)
    own = points.expand(len(filters), -1, -1)
    check("own points", apply_filters(own, filters, layout), wanted)


# 06: matching


def owners(selected: Tensor, gt_indices: Tensor) -> Tensor:
    """The object of each query, from the reference's two lists."""
    owner = torch.full(selected.shape, FREE)
    owner[selected] = gt_indices
    return owner


def test_matcher(reference_dir: Path) -> None:
    file = Arrays.load(reference_dir / "06_matcher.npz")
    config = MatcherConfig()
    strict_cases = 0
    for i in range(int(file["num_cases"])):
        case = file.below(f"c{i:02d}_")
        height, width = case.size("image_hw")
        labels = case["gt_labels"]
        valid = torch.ones(1, len(labels), dtype=torch.bool)
        cost, overlap = matching_cost(
            case["logits"][None],
            case["boxes"][None],
            case["gt_boxes_xyxy"][None],
            labels[None],
            valid,
            torch.tensor([width, height, width, height]).float().view(1, 1, 4),
            config,
            "log" if case.text("mode") == "fednaive" else "focal",
        )
        if "cost" in case:
            torch.testing.assert_close(cost[0], case["cost"], rtol=1e-5, atol=1e-5)
        owner = dynamic_k_match(cost, overlap, valid, config.candidates)[0]
        wanted = owners(case["selected"], case["gt_indices"])
        lost = len(labels) - len(case["gt_indices"].unique())
        if bool(case["f64_same"]) and not lost:
            strict_cases += 1
            assert owner.tolist() == wanted.tolist(), case.prefix
            continue
        served = len(owner[owner != FREE].unique())
        assert served == min(len(labels), len(owner)), case.prefix
        assert int((owner != wanted).sum()) <= 2 * lost, case.prefix
    assert strict_cases


# 07: the objective

LOSS_NAMES = {"ce": "class", "bbox": "l1", "giou": "giou", "masks": "dice"}


class CriterionCase:
    """One prefix of set 07: stage outputs, objects and the pairs and classes the reference used."""

    def __init__(self, case: Arrays) -> None:
        self.case = case
        meta = json.loads(case.text("meta"))
        self.stages = [
            StageOutput(
                logits=case[f"s{s}_logits"].requires_grad_(),
                boxes=case[f"s{s}_boxes"].requires_grad_(),
                filters=case[f"s{s}_kernels"].requires_grad_(),
                queries=torch.zeros(0),
            )
            for s in range(meta["num_stages"])
        ]
        images = case.numbered(r"im(\d+)_hw$")
        sizes = tuple(case.size(f"im{i}_hw") for i in images)
        self.encoded = Encoded.for_masks(case["mask_feat"].requires_grad_(), sizes)
        self.targets = [
            Targets(
                case[f"im{i}_gt_boxes_xyxy"],
                case[f"im{i}_gt_labels"],
                case.masks(f"im{i}_gt_masks_packed", sizes[i]),
            )
            for i in images
        ]
        self.owner = torch.stack([self._stored_owner(s, len(sizes)) for s in self._stage_range()])
        kind = "focal"
        if meta["fed"]:
            kind = "federated_focal" if meta["focal"] else "federated_bce"
        counts = case["class_image_count"] if meta["fed"] else None
        self.criterion = Criterion(CriterionConfig(class_loss=kind), counts)
        self.federated = (
            [case[f"s{s}_fed_classes"] for s in self._stage_range()] if meta["fed"] else None
        )
        filters, maps = self.stages[0].filters, self.encoded.mask_features
        self.network = network_of(layout_of(filters.shape[-1], maps.shape[1]))

    def _stage_range(self) -> range:
        return range(len(self.stages))

    def _stored_owner(self, stage: int, images: int) -> Tensor:
        found = [self.case.below(f"s{stage}_im{i}_") for i in range(images)]
        return torch.stack([owners(f["selected"], f["gt_indices"]) for f in found])

    def losses(self) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.criterion(
            self.stages,
            self.encoded,
            self.targets,
            self.network.mask_head,
            match=Match.of(self.owner),
            federated=self.federated,
        )
        return losses


@functools.cache
def network_of(layout: FilterLayout, num_classes: int = 1) -> DiffusionInstNetwork:
    """The smallest network whose filters have this layout."""
    config = Config.from_preset("tiny").updated(
        model={
            "num_classes": num_classes,
            "mask_branch": {"channels": layout.inputs},
            "filters": {"channels": layout.channels, "layers": layout.layers},
        }
    )
    return DiffusionInstNetwork(config.model).eval()


def criterion_cases(reference_dir: Path) -> list[CriterionCase]:
    file = Arrays.load(reference_dir / "07_criterion.npz")
    prefixes = [name.removesuffix("meta") for name in file.content if name.endswith("_meta")]
    assert prefixes
    return [CriterionCase(file.below(prefix)) for prefix in prefixes]


def test_criterion_terms_and_gradients(reference_dir: Path) -> None:
    for item in criterion_cases(reference_dir):
        case, losses = item.case, item.losses()
        stored = [n.removeprefix(case.prefix) for n in case.content if n.startswith(case.prefix)]
        terms = [name for name in stored if name.startswith("loss__")]
        assert len(terms) == len(losses) - 1
        for name in terms:
            _, short, *stage = name.removeprefix("loss__").split("_")
            key = f"loss/{LOSS_NAMES[short]}" + "".join(f"_stage{s}" for s in stage)
            check(case.prefix + key, losses[key], case[name])
        check(case.prefix + "loss", losses["loss"], case["loss_total"])
        losses["loss"].backward()
        check(f"{case.prefix} F_mask", item.encoded.mask_features.grad, case["grad_mask_feat"])
        for s, output in enumerate(item.stages):
            where = f"{case.prefix} stage {s}"
            check(f"{where} logits", output.logits.grad, case[f"s{s}_grad_logits"])
            check(f"{where} boxes", output.boxes.grad, case[f"s{s}_grad_boxes"])
            check(f"{where} filters", output.filters.grad, case[f"s{s}_grad_kernels"])


def test_criterion_finds_the_same_pairs(reference_dir: Path) -> None:
    for item in criterion_cases(reference_dir):
        packed = PackedTargets.of(item.targets, torch.device("cpu"))
        found = item.criterion.match(item.stages, packed, item.encoded.scale)
        assert torch.equal(found.owner, item.owner), item.case.prefix


def test_federated_weights_are_roots_of_counts(reference_dir: Path) -> None:
    for item in criterion_cases(reference_dir):
        if item.federated is not None:
            weights = item.criterion.class_weights
            check(f"{item.case.prefix} weights", weights, item.case["fed_cls_weights"])


# 10: post-processing


def test_postprocess(reference_dir: Path) -> None:
    """The stored probabilities become channels of F_mask; one-layer filters pick them out."""
    file = Arrays.load(reference_dir / "10_postprocess.npz")
    for i in range(int(file["num_cases"])):
        case = file.below(f"c{i}_")
        probs, output = case["in_mask_prob"], case.size("out_hw")
        count = len(probs)
        maps = torch.logit(probs.double(), eps=1e-9).float()
        encoded = Encoded.for_masks(maps[None], (case.size("image_hw"),))
        filters = torch.cat([torch.eye(count), torch.zeros(count, 1)], dim=1)
        columns = (case["in_boxes"], case["in_scores"], case["in_classes"], filters)
        found = Candidates(*(column[None] for column in (*columns, torch.arange(count))))
        layout = FilterLayout(inputs=count, layers=1)
        network = network_of(layout, num_classes=int(case["in_classes"].max()) + 1)
        pipeline = Pipeline(network, Config(), Options(nms_iou=1.0))  # nothing is suppressed
        instances = pipeline.instances(found, encoded, 0, output)
        check(f"{case.prefix} boxes", instances.boxes, case["out_boxes"])
        assert torch.equal(instances.scores, case["out_scores"])
        assert torch.equal(instances.labels, case["out_classes"])
        wanted = case.masks("out_masks_packed", output)
        assert instances.masks.shape == wanted.shape
        different = (instances.masks != wanted).float().mean()  # pixels within rounding of 0.5
        assert different <= 1e-4, case.prefix
