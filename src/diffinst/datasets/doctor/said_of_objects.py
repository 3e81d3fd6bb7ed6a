"""What is said about masks, boxes and objects together?"""

from __future__ import annotations

from diffinst.datasets.doctor.kind import LEFT_OUT, Kind, Kinds

_NEW_BOX = "measures the box from the mask"

OBJECTS: Kinds = {
    # --- segmentations
    "no-segmentation": Kind(
        "breaks",
        "annotation",
        "An annotation has no 'segmentation': it may have been made for boxes alone.",
        "Draw its mask, or remove it. Boxes alone do not teach masks.",
        LEFT_OUT,
    ),
    "segmentation-form": Kind(
        "breaks",
        "annotation",
        "A segmentation is neither a list of polygons [[x1, y1, x2, y2, ...], ...] nor run lengths "
        "{'size': [height, width], 'counts': ...}.",
        "Export the annotations again, as COCO instance segmentation.",
        "puts a single polygon or points [[[x, y], ...]] into that form, leaves others out",
    ),
    "polygon-pairs": Kind(
        "spoils",
        "annotation",
        "A segmentation is a list of points [[x, y], ...] instead of a list of polygons [[x1, y1, "
        "x2, y2, ...], ...]. Each point counts as a polygon without extent: the object is lost.",
        "Write all points of a polygon into one list.",
        "does so",
    ),
    "not-a-number": Kind(
        "breaks",
        "annotation",
        "A polygon holds something that is no finite number (NaN, infinity, text).",
        "Correct the polygon.",
        "leaves the polygon out, and the object if none remains",
    ),
    "wild-coordinates": Kind(
        "breaks",
        "annotation",
        "A polygon has a point millions of pixels away; drawing it exhausts the memory.",
        "Correct the polygon.",
        "leaves the polygon out, and the object if none remains",
    ),
    "odd-polygon": Kind(
        "breaks",
        "annotation",
        "A polygon has an odd count of numbers, so an x has lost its y.",
        "Correct the polygon.",
        "drops the last number if the rest fits the box, else leaves the object out",
    ),
    "short-polygon": Kind(
        "spoils",
        "annotation",
        "A polygon has fewer than three points and encloses nothing; it is ignored.",
        "Remove it, or draw it anew.",
        "leaves the polygon out, and the object if none remains",
    ),
    "empty-segmentation": Kind(
        "spoils",
        "annotation",
        "A segmentation is empty: the object is not used.",
        "Remove the annotation, or draw its mask.",
        LEFT_OUT,
    ),
    "normalised": Kind(
        "spoils",
        "annotation",
        "Coordinates run from 0 to 1, as shares of the image; COCO files hold pixels. The mask "
        "is a dot in the corner.",
        "Multiply x by the width and y by the height of the image.",
        "does so",
    ),
    "rle-size": Kind(
        "breaks",
        "annotation",
        "Run lengths (RLE) are for an image of another size.",
        "Correct 'size' ([height, width]), or encode the mask again.",
        "where height and width are merely swapped, corrects that; else leaves the object out",
    ),
    "rle-broken": Kind(
        "breaks",
        "annotation",
        "Run lengths (RLE) are broken: they do not cover the image exactly.",
        "Encode the mask again.",
        LEFT_OUT,
    ),
    "outside-image": Kind(
        "spoils",
        "annotation",
        "A mask lies outside its image altogether: the object is never seen.",
        "Check whether the annotation belongs to this image, and its size.",
        LEFT_OUT,
    ),
    "partly-outside": Kind(
        "note",
        "annotation",
        "A mask reaches beyond the edge of its image; the part outside is cut off.",
        "Nothing to do if objects are annotated beyond the edge; else check image sizes.",
        "cuts the mask at the edge",
    ),
    "empty-mask": Kind(
        "spoils",
        "annotation",
        "A mask covers no pixel (too thin or too small): the object is never seen.",
        "Remove it, or draw it anew.",
        LEFT_OUT,
    ),
    # --- boxes and areas
    "box-xyxy": Kind(
        "spoils",
        "annotation",
        "A box seems to be written as left, top, right, bottom; COCO boxes are left, top, width, "
        "height. Read so, it is far too large.",
        "Convert the boxes.",
        _NEW_BOX,
    ),
    "box-without-area": Kind(
        "spoils",
        "annotation",
        "A box has no area inside its image: the object is left out.",
        "Correct the box, or leave 'bbox' away: it is measured from the mask then.",
        _NEW_BOX,
    ),
    "box-not-mask": Kind(
        "spoils",
        "annotation",
        "Box and mask disagree: they share less than half of the area they cover together.",
        "Find out which is right (see the contact sheet); without 'bbox' it is measured from the "
        "mask.",
        _NEW_BOX,
    ),
    "box-outside": Kind(
        "note",
        "annotation",
        "A box reaches beyond the edge of its image; it is cut there.",
        "Nothing to do.",
        _NEW_BOX,
    ),
    "area-field": Kind(
        "note",
        "annotation",
        "The field 'area' is far from the count of pixels of the mask. It sorts objects into "
        "small, medium and large when a model is scored.",
        "Count it anew, or leave 'area' away.",
        "counts the pixels",
    ),
    # --- objects together
    "duplicate-annotation": Kind(
        "spoils",
        "annotation",
        "An object is annotated twice, with the same mask and class: finding it once counts as "
        "half.",
        "Remove one of them.",
        "keeps the first",
    ),
    "two-classes": Kind(
        "spoils",
        "annotation",
        "The same mask stands twice, with different classes: the model is told both yes and no.",
        "Decide for one class.",
    ),
    "crowd": Kind(
        "note",
        "annotation",
        "Objects marked as crowds (iscrowd: 1, a group under one mask) are not trained on, and "
        "neither rewarded nor punished when a model is scored.",
        "Nothing to do if few; where many, annotate single objects.",
    ),
    "no-objects": Kind(
        "note",
        "image",
        "Images without objects teach what background looks like.",
        "Fine if they really show none; if they were not annotated yet, remove them.",
    ),
    "many-objects": Kind(
        "note",
        "image",
        "Images with more objects than usual settings provide for.",
        "Give training and prediction more proposals than an image has objects.",
    ),
    "small-objects": Kind(
        "note",
        "object",
        "Many objects are small.",
        "Enlarge the images before they enter the network.",
    ),
}
