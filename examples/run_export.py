"""How does one run an exported model without diffinst? `python run_export.py FOLDER IMAGE OUT.png`.

FOLDER is what `diffinst export` wrote. Needs numpy, Pillow, and the runtime: torch, onnxruntime or
openvino. Draws the masks and prints a line per object: class, score, x0, y0, x1, y1, pixels.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def run(kind: str, folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    if kind == "torch-export":
        import torch

        module = torch.export.load(folder / "model.pt2").module()
        with torch.no_grad():
            found = module(**{name: torch.from_numpy(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in found.items()}
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(folder / "model.onnx")
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, inputs), strict=True))
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32"}  # some processors would round to bf16
    found = openvino.Core().compile_model(folder / "model.xml", "CPU", settings)(inputs)
    return {output.any_name: value for output, value in found.items()}


folder = Path(sys.argv[1])
about = json.loads((folder / "export.json").read_text("utf-8"))
if not about["postprocess"]:
    sys.exit(f"{folder} was exported with --no-postprocess: export it without that flag")
image = Image.open(sys.argv[2]).convert("RGB")
height, width = about["size"]
pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
inputs = {"image": pixels.transpose(2, 0, 1)[None].copy(), **np.load(folder / "noise.npz")}
found = run(about["format"], folder, inputs)
scale = np.array([image.width / width, image.height / height] * 2)  # back to the image's pixels
canvas, colours = np.asarray(image, np.float32).copy(), np.random.default_rng(0)
for box, score, label, mask in zip(*(found[name] for name in about["outputs"]), strict=True):
    if score >= max(about["threshold"], 0):  # rows without an object have the score -1
        inside = np.asarray(Image.fromarray(mask * 255).resize(image.size)) > 127
        canvas[inside] = 0.5 * canvas[inside] + 0.5 * colours.integers(0, 256, 3)
        corners = " ".join(f"{value:.1f}" for value in box * scale)
        print(about["class_names"][label], f"{score:.3f}", corners, int(inside.sum()))
Image.fromarray(canvas.astype(np.uint8)).save(sys.argv[3])
