"""`diffinst convert` and `diffinst info`: model files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from diffinst.cli.terminal import say
from diffinst.config import Config, preset_names

if TYPE_CHECKING:
    from diffinst.models.network import DiffusionInstNetwork

SHOWN_CLASSES = 10


def convert(file: Path, /, *, out: Path) -> None:
    """Turn official DiffusionInst weights, or an ImageNet backbone, into safe files of ours.

    Example: diffinst convert model_final.pth --out models/r50

    Parameters
    ----------
    file
        .pth, .pt, .bin, .pkl or .safetensors; read without running any code in it.
    out
        Folder for config.json and model.safetensors, or for backbone.safetensors.
    """
    from diffinst.models.network import DiffusionInstNetwork
    from diffinst.weights import store
    from diffinst.weights.convert import convert as run

    converted = run(file)
    if converted.config is None:
        path = out / "backbone.safetensors"
        store.write_tensors(path, converted.tensors)
        say(
            f"backbone weights for timm's {converted.backbone}: {path}\n"
            f"use: --model.backbone.name {converted.backbone} --model.backbone.weights-file {path}"
        )
        return
    network = DiffusionInstNetwork(converted.config.model)
    store.fill(network, converted.tensors, source=str(file))
    store.save(network, converted.config, out)
    say(f"model folder: {out}\nnext: diffinst info {out}")


def info(model: str, /, *, full: Annotated[bool, Parameter(negative=())] = False) -> None:
    """What a model is: architecture, classes, sizes, defaults.

    Example: diffinst info nano-nuclei

    Parameters
    ----------
    model
        Name of shipped weights, a model folder, a file, a hub id, or a preset.
    full
        Every field of the configuration, too.
    """
    import yaml

    from diffinst.models.network import DiffusionInstNetwork
    from diffinst.weights import store

    if model in preset_names() and not Path(model).exists():
        chosen = Config.from_preset(model)
        network = DiffusionInstNetwork(chosen.model)
        print(f"preset {model}, fresh weights")
    else:
        network, chosen = store.load(model)
        print(f"model {store.locate(model)}")
    for name, text in _summary(network, chosen).items():
        print(f"{name:<11} {text}")
    if full:
        print(yaml.safe_dump(chosen.to_dict(), sort_keys=False, default_flow_style=None, width=100))
    else:
        print(f"every field: diffinst info {model} --full")


def _summary(network: DiffusionInstNetwork, config: Config) -> dict[str, str]:
    """What one wants to know first, a line each."""
    model, size, sampler, post = config.model, config.preprocess, config.sampler, config.postprocess
    parameters = sum(p.numel() for p in network.parameters())
    more = ", ..." if model.num_classes > SHOWN_CLASSES else ""
    layout, train = network.mask_head.layout, config.train
    scale = f"zoom {size.zoom:g}" if size.short_side is None else f"short side {size.short_side}"
    return {
        "parameters": f"{parameters / 1e6:.2f} M",
        "classes": f"{model.num_classes}: {', '.join(model.names[:SHOWN_CLASSES])}{more}",
        "backbone": model.backbone.name,
        "decoder": f"{model.decoder.stages} stages, width {model.decoder.width}",
        "filter": f"{layout.size} numbers, layers {layout.shapes}",
        "input": f"{scale}, long side up to {size.long_side} pixels",
        "sampling": f"{sampler.steps} step{'s' * (sampler.steps > 1)}, {sampler.proposals} "
        f"proposals, noise {model.diffusion.noise}",
        "kept": f"scores from {post.threshold:g}, up to {post.max_detections} instances an image",
        "training": f"{train.iterations} iterations of {train.batch_size} images, lr {train.lr:g}",
    }
