"""Is each file of the package short, tested, and free of hardware where the paper is told?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE, TESTS = ROOT / "src" / "diffinst", ROOT / "tests"
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))

LINES = 300
LONGER = {  # why one file says it better than two
    "datasets/coco_entries.py": "what each entry may be, checked quickly and, where wrong, named",
    "inference/predictor.py": "what is asked of a model: more docstrings and overloads than code",
    "results/instances.py": "the public result: every way out of it stands in one place",
}

PAPER_LINES = 230
PAPER = {  # the reading order of a newcomer; more lines than PAPER_LINES where a number says so
    "diffusion/schedule.py": None,
    "diffusion/signal.py": None,
    "models/decoder_stage.py": None,
    "models/network.py": None,
    "inference/pipeline.py": None,
    "training/step.py": None,
}
HARDWARE = re.compile(
    r"\b(cuda|gpus?|cpus?|onnx|openvino|export\w*|compil\w*|triton|mkl(dnn)?|onednn)\b",
    re.IGNORECASE,
)
SPOKEN = {"inference/pipeline.py": {"cpu"}}  # results are handed over in main memory

MIRRORS = {  # what is tested in another file than its own, by file or folder, and where
    "__main__.py": "training/test_processes.py",  # `python -m diffinst` starts the processes
    "cli/contact_sheet.py": "cli/test_doctor.py",
    "cli/fields.py": "cli/test_newcomer.py",
    "config/": "test_config.py",  # parts mean something in a whole configuration only
    "datasets/coco_entries.py": "datasets/test_coco.py",
    "datasets/data_yaml.py": "datasets/test_yolo.py",
    "datasets/listed.py": "datasets/test_coco.py",
    "datasets/packer.py": "datasets/test_packed.py",
    "datasets/records.py": "datasets/test_packed.py",
    "datasets/split_names.py": "datasets/test_layouts.py",
    "datasets/doctor/": "datasets/doctor/test_examine.py",  # findings, planted one by one
    "export/": "export/test_files.py",  # what is written predicts as the model does
    "inference/sources.py": "inference/test_many.py",
    "inference/runner.py": "inference/test_predictor.py",
    "inference/launch.py": "inference/test_recorded.py",
    "inference/samplers/ddim.py": "inference/test_pipeline.py",
    "inference/select.py": "inference/test_masks.py",
    "inference/trace.py": "inference/test_film.py",
    "io/image_error.py": "io/test_images.py",
    "io/listing.py": "io/test_images.py",
    "io/pillow.py": "io/test_images.py",
    "io/planes.py": "io/test_tiff.py",
    "io/windows/": "io/windows/test_windows.py",
    "inference/pieces.py": "inference/test_seams.py",
    "kernels/blocks.py": "inference/test_masks.py",
    "models/frozen_norm.py": "models/test_backbone.py",
    "models/swin.py": "models/test_backbone.py",
    "evaluation/inputs.py": "evaluation/test_metrics.py",
    "results/meta.py": "results/test_instances.py",
    "serve/engine.py": "serve/test_app.py",
    "serve/exports.py": "serve/test_app.py",
    "serve/failures.py": "serve/test_app.py",
    "serve/front.py": "serve/test_app.py",
    "serve/guard.py": "serve/test_security.py",
    "serve/metrics.py": "serve/test_app.py",
    "serve/objects.py": "serve/test_app.py",
    "serve/page_files.py": "serve/test_app.py",
    "serve/refusal.py": "serve/test_security.py",
    "serve/requests.py": "serve/test_app.py",
    "serve/train_run.py": "serve/test_training.py",  # as the process that it is
    "serve/training_routes.py": "serve/test_training.py",
    "serve/uploads.py": "serve/test_security.py",
    "training/mask_loss.py": "training/test_criterion.py",
    "training/pairs.py": "training/test_criterion.py",
    "scale/job.py": "scale/test_dataset.py",
    "scale/local.py": "scale/test_dataset.py",
    "scale/messages.py": "scale/test_rows.py",
    "scale/place.py": "scale/test_remote.py",
    "scale/watch.py": "scale/test_shard.py",
    "weights/names.py": "weights/test_convert.py",
    "weights/sizes.py": "weights/test_convert.py",
    "training/optimizer.py": "training/test_module.py",
    "training/stream.py": "training/test_fit.py",
    "training/trainer.py": "training/test_fit.py",
}


def length(file: str) -> int:
    return len((SOURCE / file).read_text(encoding="utf-8").splitlines())


def own_test(file: str) -> Path:
    """`ops/boxes.py` -> `tests/ops/test_boxes.py`."""
    path = TESTS / file
    return path.with_name(f"test_{path.name}")


def test_files_are_short_or_named() -> None:
    assert {file for file in FILES if length(file) > LINES} <= set(LONGER)


@pytest.mark.parametrize("file", LONGER)
def test_a_file_is_named_as_long_while_it_is(file: str) -> None:
    assert length(file) > LINES, "short enough now: take its name off LONGER"


@pytest.mark.parametrize("file", PAPER)
def test_the_paper_is_short(file: str) -> None:
    limit = PAPER[file]
    assert length(file) <= (limit or PAPER_LINES)
    assert limit is None or length(file) > PAPER_LINES, "short enough now: put None in PAPER"


@pytest.mark.parametrize("file", PAPER)
def test_the_paper_has_no_hardware_in_it(file: str) -> None:
    words = {m[0].lower() for m in HARDWARE.finditer((SOURCE / file).read_text(encoding="utf-8"))}
    assert words == SPOKEN.get(file, set())


@pytest.mark.parametrize("file", [file for file in FILES if not file.endswith("__init__.py")])
def test_every_file_is_tested_by_its_own_name_or_a_named_file(file: str) -> None:
    if own_test(file).is_file():
        assert file not in MIRRORS, "it has its own test: take its name off MIRRORS"
        return
    folders = (f"{folder.as_posix()}/" for folder in Path(file).parents)
    named = next((MIRRORS[key] for key in (file, *folders) if key in MIRRORS), None)
    assert named is not None, f"write {own_test(file).relative_to(ROOT)}, or name it in MIRRORS"
    assert (TESTS / named).is_file(), f"MIRRORS names {named}, which is gone"


def test_what_is_named_exists() -> None:
    named = [*LONGER, *PAPER, *SPOKEN, *MIRRORS]
    assert [name for name in named if not (SOURCE / name).exists()] == []
