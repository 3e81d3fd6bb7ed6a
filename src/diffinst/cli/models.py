"""`diffinst convert` and `diffinst info`: model files."""

from __future__ import annotations

from pathlib import Path

from diffinst.cli.terminal import say
from diffinst.config import Config, preset_names


def convert(file: Path, /, *, out: Path) -> None:
    """Turn official DiffusionInst weights, or an ImageNet backbone, into safe files of ours.

    Parameters
    ----------
    file
        .pth, .pkl or .safetensors; read without running any code in it.
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


def info(model: str, /) -> None:
    """What a model is: architecture, classes, sizes, defaults.

    Parameters
    ----------
    model
        Name of shipped weights, a model folder, a file, a hub id, or a preset.
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
    parameters = sum(p.numel() for p in network.parameters())
    print(f"parameters  {parameters / 1e6:.2f} M")
    print(f"classes     {chosen.model.num_classes}: {', '.join(chosen.model.names[:10])}")
    layout = network.mask_head.layout
    print(f"filter      {layout.size} numbers, layers {layout.shapes}")
    print(yaml.safe_dump(chosen.to_dict(), sort_keys=False, default_flow_style=None, width=100))
