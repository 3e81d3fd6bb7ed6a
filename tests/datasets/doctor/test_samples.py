"""The images to look at: full to empty, and those concerned by a finding."""

from pathlib import Path
from typing import Any

from diffinst.datasets.doctor.examine import examine
from diffinst.datasets.doctor.samples import one_per_finding, spread

Data = Any  # of conftest.py


def test_spread_goes_from_the_fullest_image_to_the_emptiest(clean: Path) -> None:
    report = examine(clean)
    counts = [len(sample.drawn) for sample in spread(report.splits, 8)]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == 42
    assert [len(sample.drawn) for sample in spread(report.splits, 2)] == [counts[0], counts[-1]]
    assert len(spread(report.splits, 1)) == 1
    assert len(spread(report.splits, 100)) == 8
    assert spread(report.splits, 0) == []
    assert spread((), 5) == []


def test_finding_shows_the_objects_it_is_about(data: Data) -> None:
    """As the file has them: annotation 2 with the wrong box, and not its neighbours."""
    data.polygon(1)
    data.train["annotations"][1]["bbox"] = [70, 60, 90, 80]
    data.save()
    report = examine(data.root)
    (sample,) = one_per_finding(report.splits, report.findings)
    assert sample.title == "box-xyxy\ntrain: 000000.png"
    (drawn,) = sample.drawn
    assert drawn.box == (70, 60, 160, 140)
    assert drawn.mask is not None
    assert drawn.name == "disc"


def test_nothing_outside_the_folder_is_shown(data: Data) -> None:
    (data.root / "secret.png").write_bytes(data.image(0).read_bytes())
    data.train["images"].append({"file_name": "../secret.png"})
    data.save()
    report = examine(data.root)
    assert "image-entry" in {finding.code for finding in report.findings}
    assert "secret.png" not in {
        s.path.name for s in one_per_finding(report.splits, report.findings)
    }


def test_finding_about_an_image_shows_all_of_it_and_unseen_ones_nothing(data: Data) -> None:
    data.image(0).unlink()
    data.train["images"][1]["height"] = 95
    (data.root / "train" / "extra.png").write_bytes(data.image(2).read_bytes())
    data.save()
    report = examine(data.root)
    shown = {s.title.split("\n")[0]: s for s in one_per_finding(report.splits, report.findings)}
    assert shown.keys() == {"wrong-size", "unnamed-image"}
    assert len(shown["wrong-size"].drawn) == 6
    assert shown["unnamed-image"].path == data.root / "train" / "extra.png"
    assert shown["unnamed-image"].drawn == ()
