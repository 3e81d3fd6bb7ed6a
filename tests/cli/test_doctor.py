"""What the command says is readable, machine-readable, and true of its exit code."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from diffinst.cli.doctor import doctor, plural
from diffinst.datasets.problems import catalogue
from diffinst.datasets.synthetic import make_shapes

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    classes = ("disc", "box")
    return make_shapes(folder, train=6, val=2, classes=classes, seed=17, objects=(4, 6))


@pytest.fixture
def broken(clean: Path, tmp_path: Path) -> Path:
    """A cut image, a class that val does not have, an annotation of no image."""
    root = Path(shutil.copytree(clean, tmp_path / "broken"))
    image = root / "train" / "000000.png"
    image.write_bytes(image.read_bytes()[:200])
    file = root / "annotations" / "instances_train.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["categories"].append({"id": 3, "name": "moon"})
    content["annotations"][1]["image_id"] = 77
    file.write_text(json.dumps(content), encoding="utf-8")
    return root


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command with OUT = tmp_path / "out": exit code, stdout and stderr without line breaks."""

    def call(data: Path, **options: object) -> tuple[int, str, str]:
        code: object = 0
        try:
            doctor(data, **{"out": tmp_path / "out", **options})  # type: ignore[arg-type]
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        assert isinstance(code, int)
        out = captured.out if options.get("json") else " ".join(captured.out.split())
        return code, out, " ".join(captured.err.split())

    return call


def test_clean_data_end_with_zero(clean: Path, run: Run, tmp_path: Path) -> None:
    code, out, err = run(clean)
    assert code == 0
    assert "train: loads: 6 images, 32 objects, 2 classes" in out
    assert "breaks 0 (training stops or cannot start)" in out
    assert "spoils 0 (training runs, and the model gets worse)" in out
    assert "--fix" not in out
    assert f"contact sheet {tmp_path / 'out' / 'contact_sheet.png'}" in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "contact_sheet.png",
        "report.json",
    ]


def test_broken_data_end_with_one_and_say_what_to_do(broken: Path, run: Run) -> None:
    code, out, _ = run(broken)
    assert code == 1
    assert "BREAKS unreadable-image: 1 image in train" in out
    assert "- image 1 (000000.png): is cut short or damaged" in out
    assert "What to do: Copy or export the file again." in out
    assert "--fix leaves the image and its objects out." in out
    assert "BREAKS unknown-image: 1 annotation in train" in out
    assert "- annotation 2, image 77" in out
    assert "BREAKS classes-differ: 1 class in val" in out
    assert "breaks 3 (training stops or cannot start)" in out
    assert f"A repaired copy: diffinst doctor {broken} --fix NEW_FOLDER" in out


def test_json_is_the_report_and_nothing_else(broken: Path, run: Run, tmp_path: Path) -> None:
    code, out, _ = run(broken, json=True)
    assert code == 1
    report = json.loads(out)
    assert report == json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["breaks"] is True
    first = next(one for one in report["findings"] if one["code"] == "unknown-image")
    assert (first["severity"], first["split"], first["count"]) == ("breaks", "train", 1)
    assert first["places"] == [
        {"image_id": 77, "file_name": "", "annotation_id": 2, "detail": ""},
    ]
    assert {"images", "objects", "class_counts", "sides"} <= report["summaries"][0].keys()


def test_repaired_copy_is_clean(broken: Path, run: Run, tmp_path: Path) -> None:
    code, _, err = run(broken, fix=tmp_path / "fixed")
    assert code == 1  # said of DATA
    # image 1 had 5 objects, one of them went to image 77; the other 27 stay, and 10 in val
    assert f"repaired copy {tmp_path / 'fixed'}: 7 of 8 images, 37 of 41 objects" in err
    code, out, _ = run(tmp_path / "fixed")
    assert code == 0
    assert "NOTE unused-class: 1 class" in out


def test_without_an_image_there_is_no_sheet(clean: Path, run: Run, tmp_path: Path) -> None:
    run(clean)
    assert (tmp_path / "out" / "contact_sheet.png").exists()
    (tmp_path / "empty").mkdir()
    code, out, err = run(tmp_path / "empty")
    assert code == 1
    assert "BREAKS missing-split: 1 split in train" in out
    assert "contact sheet" not in err
    assert not (tmp_path / "out" / "contact_sheet.png").exists()  # that of other data


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": -1}, "--samples -1; allowed are numbers from 0"),
        ({"out": "DATA/train"}, "lies in .*, which stays as it is; name another folder"),
        ({"fix": "DATA/fixed"}, "lies in .*, which stays as it is; name a folder outside"),
        ({"fix": "."}, "is there already; name a folder that does not exist yet"),
    ],
    ids=str,
)
def test_wrong_options_are_refused_before_anything_is_done(
    options: dict[str, object], message: str, clean: Path, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "mine").touch()
    places = {"DATA/train": clean / "train", "DATA/fixed": clean / "fixed", ".": tmp_path}
    given = {name: places.get(str(value), value) for name, value in options.items()}
    with pytest.raises((ValueError, OSError), match=message):
        run(clean, **given)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_no_folder_is_an_error(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absent is no folder; give the folder of the dataset"):
        run(tmp_path / "absent")


def test_file_in_place_of_out_is_an_error(clean: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(FileExistsError):
        run(clean)


def test_every_unit_has_a_plural() -> None:
    plurals = {plural(kind.unit) for kind in catalogue().values()}
    assert {"images", "classes", "categories", "image entries", "pairs of fields"} <= plurals
    assert all(" " not in word or word.split()[0].isalpha() for word in plurals)


def test_sheet_holds_the_samples_and_a_tile_for_each_finding(
    clean: Path, run: Run, tmp_path: Path
) -> None:
    """Tiles are 400 pixels wide and 20 apart."""
    run(clean, samples=1)
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.width == 20 + 1 * 420
    root = Path(shutil.copytree(clean, tmp_path / "data"))
    for name in ("extra", "more"):  # one finding
        Image.new("RGB", (32, 32)).save(root / "train" / f"{name}.png")
    run(root, samples=1)
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.width == 20 + 2 * 420
    run(root, samples=100)  # all 8 images and the finding: three rows of three leave no gap
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.width == 20 + 3 * 420


def test_an_image_said_to_be_a_line_gets_no_endless_tile(
    clean: Path, run: Run, tmp_path: Path
) -> None:
    """400 pixels wide, three times as tall, and 20 and a title around."""
    root = Path(shutil.copytree(clean, tmp_path / "data"))
    file = root / "annotations" / "instances_train.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["images"][0]["height"] = 400_000
    file.write_text(json.dumps(content), encoding="utf-8")
    run(root, samples=1)
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.height < 1400
