"""What is said about YOLO's files?"""

from __future__ import annotations

from diffinst.datasets.doctor.kind import Kind, Kinds

LABELS: Kinds = {
    # --- YOLO text files
    "yolo-names": Kind(
        "breaks",
        "file",
        "The data.yaml does not say properly which classes there are ('names', and 'nc' if given).",
        "Correct it: names: [cat, dog].",
        "takes the names as they stand",
    ),
    "no-label-files": Kind(
        "breaks",
        "split",
        "No image has a label file where it belongs.",
        "Put the labels there, or export the dataset again.",
    ),
    "missing-label-file": Kind(
        "spoils",
        "image",
        "Some images have no label file, others have. They are taken as showing nothing, which "
        "is wrong where the file was lost.",
        "Put the file there; an empty one says that nothing is to be seen.",
    ),
    "yolo-line": Kind(
        "breaks",
        "line",
        "A line of a label file is not 'class x1 y1 x2 y2 x3 y3 ...' in numbers.",
        "Correct the line.",
        "leaves the line out",
    ),
    "yolo-boxes-only": Kind(
        "breaks",
        "line",
        "The label files hold boxes (class, centre, width, height) and no polygon. Boxes alone do "
        "not teach masks.",
        "Export the dataset for instance segmentation.",
    ),
    "yolo-box": Kind(
        "spoils",
        "line",
        "Among polygons, a line of a label file holds a box (class, centre, width, height). It is "
        "taken for a rectangular mask.",
        "Draw the object's outline.",
    ),
    "yolo-class": Kind(
        "breaks",
        "line",
        "A class number is not among the 'names' of the data.yaml (they count from 0).",
        "Correct the number, or add the name.",
        "leaves the line out",
    ),
    "yolo-range": Kind(
        "breaks",
        "line",
        "Coordinates lie outside the image: they are shares of its width and height, 0 to 1.",
        "Divide pixels by the image's size: export again.",
        "leaves the line out",
    ),
    "label-without-image": Kind(
        "note",
        "file",
        "A label file belongs to no image: it is not used.",
        "Put the image there, or remove the file.",
        "does not copy it",
    ),
}
