"""What is said about folders, annotation files, their entries and classes?"""

from __future__ import annotations

from diffinst.datasets.doctor.kind import LEFT_OUT, Kind, Kinds

ENTRIES: Kinds = {
    # --- the folder and its files
    "missing-split": Kind(
        "breaks",
        "split",
        "There is no such split, or its images are not where its annotations say.",
        "Put annotations and images into one of the layouts that the message names.",
    ),
    "no-val": Kind(
        "note",
        "split",
        "There is no split 'val'. Training runs, but nothing tells how good the model becomes.",
        "Put a tenth of the images aside as 'val', best of scenes that 'train' does not show.",
    ),
    "broken-file": Kind(
        "breaks",
        "file",
        "The annotation file cannot be read.",
        "Copy or export it again.",
    ),
    "missing-table": Kind(
        "breaks",
        "list",
        "The annotation file lacks a list that COCO files have ('images', 'annotations', "
        "'categories'), or the list is empty where something must stand.",
        "Export the annotations again, as COCO instance segmentation.",
    ),
    "no-images": Kind(
        "breaks",
        "split",
        "The split names no images, so there is nothing to train on.",
        "Check that the right annotation file lies in the folder.",
    ),
    "no-objects-at-all": Kind(
        "breaks",
        "split",
        "No image shows an object that can be used: there is nothing to learn.",
        "Check the export: the annotations may be of another kind (boxes, labels of images).",
    ),
    # --- entries
    "image-entry": Kind(
        "breaks",
        "image entry",
        "An entry of 'images' lacks a field or holds something of a wrong type. Needed are id "
        "(whole number), file_name (text), height and width (whole numbers above 0).",
        "Correct the entry.",
        "corrects what can be told from the entry or the image, leaves other entries out",
    ),
    "annotation-entry": Kind(
        "breaks",
        "annotation",
        "An annotation lacks a field or holds something of a wrong type. Needed are id, image_id, "
        "category_id (whole numbers); bbox (four numbers), area (a number from 0) and iscrowd (0 "
        "or 1) may be left away.",
        "Correct the annotation.",
        "corrects what can be told, leaves other annotations out",
    ),
    "category-entry": Kind(
        "breaks",
        "category",
        "An entry of 'categories' lacks a field or holds something of a wrong type. Needed are id "
        "(whole number) and name (text).",
        "Correct the entry.",
        "corrects what can be told, leaves other classes out with their objects",
    ),
    "mixed-ids": Kind(
        "breaks",
        "pair of fields",
        "Ids that are compared with each other are written as text in one place and as numbers in "
        "another.",
        "Write all ids as numbers.",
        "does so",
    ),
    "lvis-classes": Kind(
        "breaks",
        "image entry",
        "The list of classes that are known to be absent (or not fully annotated) on an image "
        "holds something that is no id of 'categories'.",
        "Remove it from the list.",
        "does so",
    ),
    "duplicate-image-id": Kind(
        "breaks",
        "image entry",
        "Several images have the same id, so nobody can tell whose objects are whose.",
        "Give each image an id of its own, and its annotations that id.",
        "keeps one entry if all name the same file, else leaves all of them out with their objects",
    ),
    "duplicate-annotation-id": Kind(
        "breaks",
        "annotation",
        "Several annotations have the same id.",
        "Renumber them; nothing else refers to these ids.",
        "gives the later ones new ids",
    ),
    "duplicate-category-id": Kind(
        "breaks",
        "category",
        "Several classes have the same id, so nobody can tell of which class an object is.",
        "Give each class an id of its own, and its annotations that id.",
        "keeps one entry if all have the same name",
    ),
    "duplicate-file-name": Kind(
        "breaks",
        "image",
        "An image has several entries, each with a part of its objects: what one entry lists, the "
        "others would teach as background.",
        "Merge the entries into one, with all annotations.",
        "merges them",
    ),
    "unknown-image": Kind(
        "breaks",
        "annotation",
        "An annotation belongs to an image (image_id) that is not in 'images'.",
        "Add the image, or remove the annotation.",
        LEFT_OUT,
    ),
    "unknown-category": Kind(
        "breaks",
        "annotation",
        "An annotation is of a class (category_id) that is not in 'categories'.",
        "Add the class, or remove the annotation.",
        LEFT_OUT,
    ),
    # --- classes
    "empty-class-name": Kind(
        "breaks",
        "category",
        "A class has an empty name.",
        "Name it.",
        "names it 'class ID'",
    ),
    "duplicate-class-name": Kind(
        "breaks",
        "category",
        "Several classes have the same name.",
        "Rename or merge them.",
        "merges them into the one with the lowest id",
    ),
    "similar-class-names": Kind(
        "note",
        "category",
        "Names of classes differ in letter case or spaces only.",
        "If they mean the same, merge them; now the model has to tell them apart.",
    ),
    "classes-differ": Kind(
        "breaks",
        "class",
        "The classes of this split are not those of 'train', so a model of one cannot be scored "
        "on the other.",
        "List the same classes in both files, also those without objects.",
        "lists all classes in all splits",
    ),
    "category-ids-differ": Kind(
        "note",
        "class",
        "A class has another id here than in 'train'. Classes are matched by name here, but other "
        "tools go by id.",
        "Use the same ids in all splits.",
        "takes the ids of 'train' (where they are free)",
    ),
    "class-not-in-train": Kind(
        "spoils",
        "class",
        "A class has objects here, but none in 'train': the model cannot learn it and is marked "
        "down for it.",
        "Move some of these images to 'train'.",
    ),
    "unused-class": Kind(
        "note",
        "class",
        "A class has no object in any split.",
        "Remove it from 'categories', unless its objects are still to come.",
    ),
    "few-objects": Kind(
        "note",
        "class",
        "A class has fewer than 10 objects in 'train': too few to learn it well.",
        "Annotate more of them, or merge the class with a similar one.",
    ),
    "imbalance": Kind(
        "note",
        "class",
        "The classes are very unevenly filled.",
        "Annotate more of the rare ones, or show images with them more often.",
    ),
}
