"""Every defect planted in clean YOLO labels is found, with file and line, and repaired."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from diffinst.datasets.doctor import repair
from diffinst.datasets.doctor.examine import examine
from diffinst.datasets.problems import catalogue
from diffinst.datasets.segmentation import DatasetError

HEIGHT, WIDTH = 96, 128
Trains = Callable[[Path], bool]
SQUARES = [  # class and corner in pixels, 20 pixels wide and high
    (0, 10, 10),
    (1, 50, 10),
    (0, 10, 50),
    (1, 90, 60),
]


def share_line(kind: int, x: float, y: float) -> str:
    corners = [(x, y), (x + 20, y), (x + 20, y + 20), (x, y + 20)]
    return f"{kind} " + " ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in corners)


@pytest.fixture(scope="module")
def clean_labels(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images, four squares on each."""
    root = tmp_path_factory.mktemp("labels")
    (root / "data.yaml").write_text(
        "names: [disc, box]\nnc: 2\ntrain: images/train\nval: images/val\n", "utf-8"
    )
    for split in ("train", "val"):
        shutil.copytree(clean / split, root / "images" / split)
        for image in (root / "images" / split).iterdir():
            file = root / "labels" / split / f"{image.stem}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(share_line(*square) for square in SQUARES) + "\n", "utf-8")
    return root


def edit_file(name: str, edit: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        text = (root / name).read_text("utf-8") if (root / name).is_file() else ""
        (root / name).write_text(edit(text), "utf-8")

    return apply


def boxes_only(root: Path) -> None:
    for file in (root / "labels" / "train").iterdir():
        file.write_text("0 0.5 0.5 0.3 0.3\n", "utf-8")


def listed(root: Path) -> None:
    (root / "list.txt").write_text("images/train/000000.png\nimages/train/gone.png\n", "utf-8")
    edit_file("data.yaml", lambda text: text.replace("images/train", "list.txt"))(root)


FIRST = "labels/train/000000.txt"


def added(line: str) -> Callable[[Path], None]:
    """As line 5 of the first label file."""
    return edit_file(FIRST, lambda text: text + line)


def renamed(old: str, new: str) -> Callable[[Path], None]:
    return edit_file("data.yaml", lambda text: text.replace(old, new))


def emptied(root: Path) -> None:
    (root / "images" / "train" / "000000.png").write_bytes(b"")


# The code, the split, what does it, and what is said about it.
LINES = [
    ("yolo-line", "train", added("1 0.5 x"), "000000.txt, line 5: '1 0.5 x'"),
    ("yolo-line", "train", added("1 0.1 0.2 0.3"), "line 5: 4 numbers, the first 1"),
    ("yolo-line", "train", added("0.5 0.1 0.2"), "line 5: 3 numbers, the first 0.5"),
    ("yolo-class", "train", added(share_line(2, 80, 30)), "line 5: class 2"),
    ("yolo-class", "train", added(share_line(-1, 80, 30)), "line 5: class -1"),
    ("yolo-range", "train", added("0 1 1 40 1 40 40"), "line 5: 40"),
    ("yolo-range", "train", added("0 .1 .1 nan .1 .4 .4"), "line 5: nan"),
    ("yolo-box", "train", added("1 0.7 0.4 0.2 0.1"), "000000.txt, line 5"),
    ("yolo-boxes-only", "train", boxes_only, "000000.txt, line 1"),
    ("short-polygon", "train", added("1 0.5 0.5"), "000000.txt, line 5: 1 points"),
    ("yolo-names", "train", renamed("nc: 2", "nc: 3"), "'nc' is 3, 'names' holds 2"),
    ("yolo-names", "val", renamed("[disc, box]", "2"), "'names' is missing, empty"),
    ("duplicate-class-name", "train", renamed("disc", "box"), "'box': classes 0, 1"),
    ("no-label-files", "train", lambda root: shutil.rmtree(root / "labels/train"), "looked for"),
    ("missing-label-file", "train", lambda root: (root / FIRST).unlink(), FIRST),
    ("label-without-image", "val", edit_file("labels/val/x.txt", lambda _: ""), "val/x.txt"),
    ("missing-image", "train", listed, "gone.png"),
    ("unreadable-image", "train", emptied, "the file is empty"),
]


def test_everything_that_can_be_said_of_labels_is_planted() -> None:
    of_labels = {code for code in catalogue() if code.startswith("yolo") or "label" in code}
    assert of_labels <= {code for code, *_ in LINES}


def test_nothing_is_found_in_clean_labels(clean_labels: Path, trains: Trains) -> None:
    report = examine(clean_labels)
    assert report.findings == ()
    assert [(s.images, s.objects) for s in report.summaries] == [(6, 24), (2, 8)]
    assert examine(clean_labels / "data.yaml").findings == ()
    assert trains(clean_labels)


@pytest.mark.parametrize(
    ("code", "split", "edit", "said"), LINES, ids=[f"{code}: {said}" for code, _, _, said in LINES]
)
def test_planted_label_defect_is_found_and_repaired(
    code: str,
    split: str,
    edit: Callable[[Path], object],
    said: str,
    clean_labels: Path,
    tmp_path: Path,
    trains: Trains,
    state: Callable[[Path], object],
) -> None:
    root = Path(shutil.copytree(clean_labels, tmp_path / "data"))
    edit(root)
    before = state(root)
    report = examine(root)
    (finding,) = (one for one in report.findings if (one.code, one.split) == (code, split))
    assert said in str(finding.places[0])
    assert report.breaks is not trains(root)
    if any(one.severity == "breaks" and one.left for one in report.findings):
        with pytest.raises(DatasetError, match="cannot be repaired without you"):
            repair.write(report, tmp_path / "fixed")
    else:
        repair.write(report, tmp_path / "fixed")
        again = examine(tmp_path / "fixed")
        assert [one.code for one in again.findings if one.repair or one.severity == "breaks"] == []
        assert trains(tmp_path / "fixed")
    assert state(root) == before


def test_squares_of_labels_become_squares_of_json(clean_labels: Path, tmp_path: Path) -> None:
    repair.write(examine(clean_labels), tmp_path / "fixed")
    file = tmp_path / "fixed" / "annotations" / "instances_train.json"
    content = json.loads(file.read_text("utf-8"))
    assert content["categories"] == [{"id": 0, "name": "disc"}, {"id": 1, "name": "box"}]
    assert len(content["annotations"]) == 24
    entry = content["annotations"][1]
    assert entry["category_id"] == 1
    assert entry["bbox"] == [50, 10, 20, 20]
    assert entry["segmentation"][0] == pytest.approx([50, 10, 70, 10, 70, 30, 50, 30], abs=1e-3)
