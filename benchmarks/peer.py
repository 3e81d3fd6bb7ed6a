"""The rival of the accuracy benchmark: torchvision's Mask R-CNN on our backbone and our windows.

    python benchmarks/peer.py train --data DATA --config run.json --out runs/peer --iterations 800
    python benchmarks/peer.py eval --data DATA --model runs/peer --out results.json

Heads, pyramid, proposals and losses are torchvision's own; the backbone is the same timm network
with the same weights and folded frozen BatchNorm, and the training windows come from the same
stream (`diffinst.training.loader`) in the same order. Convolutions run in bf16, boxes and losses in
float32.
"""

from __future__ import annotations

import json
import math
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from cyclopts import App
from pycocotools import mask as mask_utils
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from diffinst.config import IMAGENET_MEAN, IMAGENET_STD, Config
from diffinst.datasets.load import load_split
from diffinst.datasets.split import Split
from diffinst.evaluation.metrics import compute_metrics
from diffinst.evaluation.report import finite
from diffinst.io.atomic import atomic_path, write_json
from diffinst.io.images import read_image
from diffinst.models.backbone import Backbone
from diffinst.ops.images import fit_size, resize
from diffinst.training.loader import TrainBatch, train_loader

app = App()
WEIGHTS, SETTINGS = "peer.safetensors", "peer.json"
ASPECT_RATIOS = (0.5, 1.0, 2.0)  # torchvision's
LEVELS = 5  # p2..p5 and the pooled p6


@dataclass(frozen=True)
class Peer:
    """What torchvision leaves open; defaults are its own where it has some.

    Attributes:
        anchors: Side of the smallest anchor in pixels of the network input; it doubles by level.
        width: Channels of pyramid and heads' input.
        regions: RoIs an image in training, a quarter of them objects.
        detections: At most so many per image.
        score: Detections below it are dropped.
        bf16: Convolutions and linear layers under autocast.
        lr, backbone_lr_factor, weight_decay, warmup, clip_norm: AdamW with warm-up and cosine.
        sgd: Instead of AdamW: momentum 0.9.
    """

    anchors: int = 32
    width: int = 256
    regions: int = 512
    detections: int = 100
    score: float = 0.01
    bf16: bool = True
    lr: float = 3e-4
    backbone_lr_factor: float = 1.0
    weight_decay: float = 1e-4
    warmup: int = 100
    clip_norm: float = 10.0
    sgd: bool = False


class Encoder(nn.Module):
    """Backbone and torchvision's pyramid, with the `out_channels` that its detectors ask for."""

    def __init__(self, backbone: Backbone, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.fpn = FeaturePyramidNetwork(list(backbone.channels), width, LastLevelMaxPool())
        self.out_channels = width

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) to the maps "0".."3" and "pool"."""
        maps: dict[str, Tensor] = self.fpn(
            OrderedDict((str(i), m) for i, m in enumerate(self.backbone(x)))
        )
        return maps


class HalfInside(nn.Module):
    """Runs a module under bf16 autocast; what comes out is float32, as box maths needs it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.out_channels = getattr(inner, "out_channels", None)

    def forward(self, *inputs: Any) -> Any:
        """The inner module's outputs as float32."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = self.inner(*inputs)
        return _float(outputs)


def _float(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float()
    if isinstance(value, dict):
        return OrderedDict((k, _float(v)) for k, v in value.items())
    return type(value)(_float(v) for v in value)


def build(peer: Peer, config: Config, *, pretrained: bool) -> MaskRCNN:
    """The detector; images come in at their final size."""
    encoder: nn.Module = Encoder(Backbone(config.model.backbone, pretrained=pretrained), peer.width)
    sizes = tuple((peer.anchors * 2**i,) for i in range(LEVELS))
    model = MaskRCNN(
        encoder,
        config.model.num_classes + 1,
        rpn_anchor_generator=AnchorGenerator(sizes, (ASPECT_RATIOS,) * LEVELS),
        box_batch_size_per_image=peer.regions,
        box_detections_per_img=peer.detections,
        box_score_thresh=peer.score,
        image_mean=[m / 255 for m in IMAGENET_MEAN],
        image_std=[s / 255 for s in IMAGENET_STD],
        _skip_resize=True,
    )
    if peer.bf16:
        model.backbone = HalfInside(model.backbone)
        model.rpn.head = HalfInside(model.rpn.head)
        heads = model.roi_heads
        heads.box_head, heads.box_predictor = (
            HalfInside(heads.box_head),
            HalfInside(heads.box_predictor),
        )
        heads.mask_head, heads.mask_predictor = (
            HalfInside(heads.mask_head),
            HalfInside(heads.mask_predictor),
        )
    return model


@app.command
def train(
    *,
    data: Path,
    config: Path,
    out: Path,
    iterations: int,
    peer: Peer = Peer(),
    log_every: int = 5,
) -> None:
    """Train the peer.

    Args:
        data: COCO-format folder; `train` is used.
        config: Our configuration as JSON or YAML: backbone, augmentation, seed, batch size.
        out: Run folder.
        iterations: Optimiser steps; the schedule ends with them.
        peer: Settings.
        log_every: Iterations between lines of the log.
    """
    chosen = Config.from_file(config)
    split = load_split(data, "train", single_class=chosen.train.single_class)
    ours = with_data(chosen, split, iterations)
    torch.manual_seed(ours.train.seed)
    model = build(peer, ours, pretrained=True).train()
    optimizer, schedule = optimiser(model, peer, iterations)
    log = SummaryWriter(str(out / "logs"))
    for i, batch in enumerate(train_loader(split, ours)):
        torch.manual_seed(ours.train.seed * 1_000_003 + i)  # RoI sampling
        losses = model(*inputs(batch))
        total = sum(losses.values())
        assert isinstance(total, Tensor)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), peer.clip_norm)
        optimizer.step()
        schedule.step()
        if (i + 1) % log_every == 0:
            log.add_scalar("loss/total", float(total.detach()), i)
            for name, value in losses.items():
                log.add_scalar(f"loss/{name}", float(value.detach()), i)
    log.close()
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / SETTINGS, {"peer": asdict(peer), "config": ours.to_dict()})
    with atomic_path(out / WEIGHTS) as temporary:
        save_file(model.state_dict(), temporary)


def with_data(config: Config, split: Split, iterations: int) -> Config:
    """Our configuration with the data's classes and the peer's iterations."""
    return config.updated(
        model={"num_classes": len(split.classes), "class_names": list(split.classes)},
        train={"iterations": iterations},
    )


def inputs(batch: TrainBatch) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """As torchvision's detectors want them: images in [0, 1] without padding, labels from 1."""
    images = [
        batch.images.pixels[i, :, :h, :w].float() / 255
        for i, (h, w) in enumerate(batch.images.sizes)
    ]
    targets = [
        {"boxes": t.boxes, "labels": t.labels + 1, "masks": t.masks.to(torch.uint8)}
        for t in batch.targets
    ]
    return images, targets


def optimiser(
    model: nn.Module, peer: Peer, iterations: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW or SGD with linear warm-up and a cosine to zero."""
    backbone = [p for n, p in model.named_parameters() if ".backbone." in n and p.requires_grad]
    own = {id(p) for p in backbone}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in own]
    groups: list[dict[str, Any]] = [
        {"params": rest, "lr": peer.lr},
        {"params": backbone, "lr": peer.lr * peer.backbone_lr_factor},
    ]
    optimizer: torch.optim.Optimizer
    if peer.sgd:
        optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=peer.weight_decay)
    else:
        optimizer = torch.optim.AdamW(groups, weight_decay=peer.weight_decay)

    def factor(i: int) -> float:
        warm = min(1.0, (i + 1) / max(peer.warmup, 1))
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, i / iterations)))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class Predictor:
    """A trained peer: one image in, COCO results out.

    Args:
        folder: Run folder.
    """

    def __init__(self, folder: Path) -> None:
        saved = json.loads((folder / SETTINGS).read_text("utf-8"))
        self.config = Config.from_dict(saved["config"], source=str(folder))
        peer = Peer(**saved["peer"])
        self.model = build(peer, self.config, pretrained=False).eval()
        self.model.load_state_dict(load_file(folder / WEIGHTS))

    @torch.inference_mode()
    def predict(self, path: Path) -> dict[str, Tensor]:
        """Boxes, labels (from 0), scores and full-size boolean masks (n, H, W)."""
        image = read_image(path)
        shape = (image.shape[0], image.shape[1])
        preprocess = self.config.preprocess
        size = fit_size(
            shape,
            short_side=preprocess.short_side,
            zoom=preprocess.zoom,
            long_side=preprocess.long_side,
        )
        pixels = resize(torch.from_numpy(image).permute(2, 0, 1), size).float() / 255
        images, _ = self.model.transform([pixels])
        features = self.model.backbone(images.tensors)
        proposals, _ = self.model.rpn(images, features)
        found, _ = self.model.roi_heads(features, proposals, images.image_sizes)
        found = self.model.transform.postprocess(found, images.image_sizes, [shape])[0]
        return {
            "boxes": found["boxes"],
            "labels": found["labels"] - 1,
            "scores": found["scores"],
            "masks": found["masks"][:, 0] >= 0.5,
        }


@app.command(name="eval")
def evaluate(
    *,
    data: Path,
    model: Path,
    out: Path,
    single_class: bool = False,
    images: int | None = None,
) -> None:
    """Mask and box AP on val.

    Args:
        data: COCO-format folder.
        model: Run folder of `train`.
        out: JSON file.
        single_class: Take all classes as one.
        images: Only the first so many.
    """
    split = load_split(data, "val", single_class=single_class)
    predictor = Predictor(model)
    count = len(split.records) if images is None else min(images, len(split.records))
    records = [split.records[i] for i in range(count)]
    results: list[dict[str, object]] = []
    seconds = 0.0
    for record in records:
        begin = time.perf_counter()
        found = predictor.predict(record.path)
        seconds += time.perf_counter() - begin
        results += to_coco(found, record.id, split.category_ids)
    limit = predictor.model.roi_heads.detections_per_img
    values: dict[str, float] = {"seconds_per_image": seconds / len(records)}
    for kind, prefix in (("segm", "mask"), ("bbox", "box")):
        metrics = compute_metrics(
            split.as_coco([r.id for r in records]),
            results,
            iou_type=kind,  # type: ignore[arg-type]
            max_detections=limit,
        )
        values |= metrics.as_dict(prefix)
    write_json(out, finite(values))
    print({k: round(v, 4) for k, v in values.items()})


def to_coco(
    found: dict[str, Tensor], image_id: int, category_ids: tuple[int, ...]
) -> list[dict[str, object]]:
    """COCO results of one image, masks as RLE."""
    rows: list[dict[str, object]] = []
    for box, label, score, mask in zip(
        *(found[k] for k in ("boxes", "labels", "scores", "masks")), strict=True
    ):
        x1, y1, x2, y2 = box.tolist()
        rle = mask_utils.encode(mask.numpy().astype("uint8", order="F"))
        rows.append(
            {
                "image_id": image_id,
                "category_id": category_ids[int(label)],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": float(score),
                "segmentation": rle,
            }
        )
    return rows


if __name__ == "__main__":
    app()
