"""CVAT's XML is read as it is exported; the doctor notes what training refuses."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffinst.datasets.doctor import repair
from diffinst.datasets.doctor.examine import examine
from diffinst.datasets.load import load_split
from diffinst.datasets.segmentation import DatasetError, rasterize

SQUARE = '<polygon label="cat" points="2.0,1.0;4.0,1.0;4.0,3.0;2.0,3.0" z_order="0"/>'
# Rows of a box 3 wide and 2 high at column 1, row 2: two pixels not set, three set, one not.
MASK = '<mask label="dog" rle="2, 3, 1" left="1" top="2" width="3" height="2"/>'
LABELS = "".join(f"<label><name>{name}</name></label>" for name in ("dog", "cat"))
META = f"<version>1.1</version><meta><task><labels>{LABELS}</labels></task></meta>"


def write(root: Path, *shapes: str, head: str = META, attributes: str = "") -> Path:
    """images/a.png, 4 rows and 6 columns, in a task of one image."""
    (root / "images").mkdir(exist_ok=True)
    Image.new("RGB", (6, 4)).save(root / "images" / "a.png")
    image = (
        f'<image id="0" name="a.png" width="6" height="4" {attributes}>{"".join(shapes)}</image>'
    )
    (root / "annotations.xml").write_text(
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{head}{image}</annotations>'
    )
    return root


def test_polygons_and_masks(tmp_path: Path) -> None:
    split = load_split(write(tmp_path, SQUARE, MASK), "train")
    assert split.classes == ("dog", "cat")  # in the order of the task
    (record,) = split.records
    assert (record.path.name, record.height, record.width) == ("a.png", 4, 6)
    square, mask = record.annotations
    assert (square.label, square.segmentation) == (1, [[2.0, 1.0, 4.0, 1.0, 4.0, 3.0, 2.0, 3.0]])
    expected = np.zeros((4, 6), bool)
    expected[2, 3] = expected[3, 1] = expected[3, 2] = True
    np.testing.assert_array_equal(rasterize(mask.segmentation, 4, 6), expected)
    assert mask.area == 3


def test_parts_of_a_group_are_one_object(tmp_path: Path) -> None:
    part = SQUARE.replace("/>", ' group_id="3"/>')
    (record,) = load_split(write(tmp_path, part, SQUARE, part), "train").records
    assert [len(one.segmentation) for one in record.annotations] == [2, 1]


@pytest.mark.parametrize(
    "shape",
    [
        '<box label="cat" xtl="1" ytl="1" xbr="3" ybr="3"/>',
        '<polyline label="cat" points="1,1;2,2"/>',
        '<points label="cat" points="1,1"/>',
        '<skeleton label="cat"><points label="1" points="1,1"/></skeleton>',
    ],
)
def test_shapes_without_a_mask_are_left_out_and_told(tmp_path: Path, shape: str) -> None:
    with pytest.warns(UserWarning, match=r"left out 1 annotations with an empty segmentation"):
        (record,) = load_split(
            write(tmp_path, shape, SQUARE, '<tag label="day"/>'), "train"
        ).records
    assert len(record.annotations) == 1


def test_an_ellipse(tmp_path: Path) -> None:
    shape = '<ellipse label="cat" cx="3" cy="2" rx="2" ry="1"/>'
    (record,) = load_split(write(tmp_path, shape), "train").records
    assert record.annotations[0].box == pytest.approx((1, 1, 5, 3), abs=0.6)


WRONG = [
    (SQUARE.replace("2.0,1.0", "2.0,x", 1), r"image 1 \(a\.png\), polygon 1: '2\.0,x.* no numbers"),
    (SQUARE.replace("2.0,1.0;", "", 1).replace(";2.0,3.0", ";2"), "a polygon has 5 numbers"),
    (MASK.replace("2, 3, 1", "2, 3"), "mask 1: its RLE covers 5 pixels, its box has 3 x 2"),
    (MASK.replace('left="1"', 'left="4"'), "mask 1: the mask's box, 3 x 2 at 4, 2, leaves the im"),
    (MASK.replace('top="2"', ""), "mask 1: top is '', no number; correct this shape"),
    (MASK.replace('width="3"', 'width="1e300"'), "mask 1: width is 1e300, no pixels of an image"),
    ('<ellipse label="cat" cx="3" cy="2" rx="nan" ry="1"/>', "ellipse 1: rx is nan, no pixels"),
]


@pytest.mark.parametrize(("shape", "message"), WRONG)
def test_a_wrong_shape_is_named_and_can_be_left_out(
    tmp_path: Path, shape: str, message: str
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    write(root, shape, SQUARE)
    with pytest.raises(DatasetError, match=rf"annotations\.xml: .*{message}"):
        load_split(root, "train")
    report = examine(root)
    assert report.breaks
    repair.write(report, tmp_path / "fixed")
    (record,) = load_split(tmp_path / "fixed", "train").records
    assert len(record.annotations) == 1


BOMB = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotations><image>", "broken XML .*; copy or export it again"),
        ("", "broken XML"),
        (
            "<annotation><object/></annotation>",
            "it starts with <annotation>, 'CVAT for images 1.1'",
        ),
        ("<annotations><track id='0'/></annotations>", "it is of a video"),
        (f'<!DOCTYPE x [<!ENTITY a0 "xx">{BOMB}]><annotations>&a11;</annotations>', "broken XML"),
        ("<annotations/>", "'categories' is empty"),
    ],
)
def test_what_is_no_such_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (write(tmp_path) / "annotations.xml").write_text(text)
    with pytest.raises(DatasetError, match=rf"annotations\.xml: .*{message}"):
        load_split(tmp_path, "train")
    assert examine(tmp_path).breaks


def test_several_subsets_are_no_single_split(tmp_path: Path) -> None:
    first = '<image id="1" name="b.png" width="6" height="4" subset="Val"/>'
    root = write(tmp_path, SQUARE, head=META + first, attributes='subset="Train"')
    with pytest.raises(
        DatasetError, match=r"several subsets \(Train, Val\); export each by itself"
    ):
        load_split(root, "train")


def test_a_subset_may_have_a_folder(tmp_path: Path) -> None:
    root = write(tmp_path, SQUARE, attributes='subset="Train"')
    for folder in ("Train", "Old"):
        (root / "images" / folder).mkdir()
        (root / "images" / "a.png").rename(root / "images" / folder / "a.png")
        Image.new("RGB", (6, 4)).save(root / "images" / "a.png")
    (root / "images" / "a.png").unlink()
    assert load_split(root, "train").records[0].path.parent.name == "Train"


def test_a_wild_size_is_refused_before_masks_are_drawn(tmp_path: Path) -> None:
    root = write(tmp_path, MASK)
    file = root / "annotations.xml"
    file.write_text(file.read_text().replace('height="4"', 'height="2147483647"'))
    with pytest.raises(DatasetError, match="image 1: height is 2147483647, width is 6"):
        load_split(root, "train")
    assert "image-entry" in {finding.code for finding in examine(root).findings}


@pytest.mark.parametrize("encoding", ["abc-8", "utf-7", ""])
def test_an_odd_encoding_is_broken_xml(tmp_path: Path, encoding: str) -> None:
    file = write(tmp_path, SQUARE) / "annotations.xml"
    file.write_text(file.read_text().replace('"utf-8"', f'"{encoding}"'))
    with pytest.raises(DatasetError, match=r"annotations\.xml: broken XML"):
        load_split(tmp_path, "train")
