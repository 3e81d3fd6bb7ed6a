"""What is said about images?"""

from __future__ import annotations

from diffinst.datasets.doctor.kind import Kind, Kinds

_IMAGE_OUT = "leaves the image and its objects out"

IMAGES: Kinds = {
    # --- images
    "missing-image": Kind(
        "breaks",
        "image",
        "An image that the annotations name is not on disk.",
        "Put it there, or remove its entry and its annotations. Check upper and lower case, and "
        "folders in front of the name.",
        "takes the one file in the folder that has the name but for case or folders; else leaves "
        "the image and its objects out",
    ),
    "unreadable-image": Kind(
        "breaks",
        "image",
        "An image cannot be read: training stops as soon as it is its turn.",
        "Copy or export the file again.",
        _IMAGE_OUT,
    ),
    "wrong-size": Kind(
        "breaks",
        "image",
        "An image is of another size than its annotations say, so masks and pixels do not fit.",
        "Export images and annotations again, at one size.",
        "corrects the entry where all masks (RLE) are of the image's size, or where height and "
        "width are swapped; where the file is rotated by its EXIF mark, writes it unrotated as "
        "PNG; leaves other such images and their objects out",
    ),
    "exif-rotation": Kind(
        "note",
        "image",
        "An image is turned by its EXIF mark in a way that does not show in its size, so nobody "
        "can tell whether it was annotated before or after turning.",
        "Look at it in the contact sheet: if the masks do not lie on the objects, remove the mark.",
    ),
    "unnamed-image": Kind(
        "note",
        "image",
        "An image lies in the folder, but no annotation file names it: it is not used.",
        "Annotate it, or add it to 'images' if it shows no object.",
        "does not copy it",
    ),
    "duplicate-image": Kind(
        "spoils",
        "image",
        "Images are the same, pixel for pixel, under several names.",
        "Keep one of them, with all its objects.",
        "keeps the one with the most objects",
    ),
    "leak": Kind(
        "spoils",
        "image",
        "An image of 'train' is, pixel for pixel, in this split, too: scores will look better "
        "than the model is.",
        "Remove it from 'train', and ask whether others show the same scene.",
        "leaves it out of 'train'",
    ),
    "faint-image": Kind(
        "spoils",
        "image",
        "An image, as it is read, is of nearly one brightness: the model sees next to nothing. "
        "(16-bit images are divided by 257, whatever part of their range they use.)",
        "Stretch its brightness to the full range and save it as 8-bit PNG, or leave it out.",
    ),
    "16-bit": Kind(
        "note",
        "image",
        "Images have 16 bits a value; they are read as 8 bits, full range to full range.",
        "Nothing to do if they use the full range (see the contact sheet: are they dark?).",
    ),
    "cmyk": Kind(
        "note",
        "image",
        "Images are made for print (CMYK); they are converted without a colour profile, so "
        "colours may shift.",
        "Convert them to RGB if colours matter.",
    ),
    "alpha": Kind(
        "note",
        "image",
        "Images have transparent parts; they are laid on white.",
        "Nothing to do if that is meant.",
    ),
    "several-pages": Kind(
        "note",
        "image",
        "A file holds several images (an animation, a stack); only the first is used.",
        "Save the others as files of their own if they are annotated.",
    ),
    "large-image": Kind(
        "note",
        "image",
        "An image is larger than 4000 pixels on a side. It is read whole, which takes time and "
        "memory, and shrunk, which makes its objects small.",
        "Cut such images into tiles of 1000 to 2000 pixels.",
    ),
}
