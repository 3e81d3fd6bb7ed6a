"""What is said about pictures?"""

from __future__ import annotations

from diffinst.datasets.doctor.kind import Kind, Kinds

_PICTURE_OUT = "leaves the picture and its objects out"

PICTURES: Kinds = {
    # --- pictures
    "missing-picture": Kind(
        "breaks",
        "picture",
        "A picture that the annotations name is not on disk.",
        "Put it there, or remove its entry and its annotations. Check upper and lower case, and "
        "folders in front of the name.",
        "takes the one file in the folder that has the name but for case or folders; else leaves "
        "the picture and its objects out",
    ),
    "unreadable-picture": Kind(
        "breaks",
        "picture",
        "A picture cannot be read: training stops as soon as it is its turn.",
        "Copy or export the file again.",
        _PICTURE_OUT,
    ),
    "wrong-size": Kind(
        "breaks",
        "picture",
        "A picture is of another size than its annotations say, so masks and pixels do not fit.",
        "Export pictures and annotations again, at one size.",
        "corrects the entry where all masks (RLE) are of the picture's size, or where height and "
        "width are swapped; where the file is rotated by its EXIF mark, writes it unrotated as "
        "PNG; leaves other such pictures and their objects out",
    ),
    "exif-rotation": Kind(
        "note",
        "picture",
        "A picture is turned by its EXIF mark in a way that does not show in its size, so nobody "
        "can tell whether it was annotated before or after turning.",
        "Look at it in the contact sheet: if the masks do not lie on the objects, remove the mark.",
    ),
    "unnamed-picture": Kind(
        "note",
        "picture",
        "A picture lies in the folder, but no annotation file names it: it is not used.",
        "Annotate it, or add it to 'images' if it shows no object.",
        "does not copy it",
    ),
    "duplicate-picture": Kind(
        "spoils",
        "picture",
        "Pictures are the same, pixel for pixel, under several names.",
        "Keep one of them, with all its objects.",
        "keeps the one with the most objects",
    ),
    "leak": Kind(
        "spoils",
        "picture",
        "A picture of 'train' is, pixel for pixel, in this split, too: scores will look better "
        "than the model is.",
        "Remove it from 'train', and ask whether others show the same scene.",
        "leaves it out of 'train'",
    ),
    "faint-picture": Kind(
        "spoils",
        "picture",
        "A picture, as it is read, is of nearly one brightness: the model sees next to nothing. "
        "(16-bit pictures are divided by 257, whatever part of their range they use.)",
        "Stretch its brightness to the full range and save it as 8-bit PNG, or leave it out.",
    ),
    "16-bit": Kind(
        "note",
        "picture",
        "Pictures have 16 bits a value; they are read as 8 bits, full range to full range.",
        "Nothing to do if they use the full range (see the contact sheet: are they dark?).",
    ),
    "cmyk": Kind(
        "note",
        "picture",
        "Pictures are made for print (CMYK); they are converted without a colour profile, so "
        "colours may shift.",
        "Convert them to RGB if colours matter.",
    ),
    "alpha": Kind(
        "note",
        "picture",
        "Pictures have transparent parts; they are laid on white.",
        "Nothing to do if that is meant.",
    ),
    "several-pages": Kind(
        "note",
        "picture",
        "A file holds several pictures (an animation, a stack); only the first is used.",
        "Save the others as files of their own if they are annotated.",
    ),
    "large-picture": Kind(
        "note",
        "picture",
        "A picture is larger than 4000 pixels on a side. It is read whole, which takes time and "
        "memory, and shrunk, which makes its objects small.",
        "Cut such pictures into tiles of 1000 to 2000 pixels.",
    ),
}
