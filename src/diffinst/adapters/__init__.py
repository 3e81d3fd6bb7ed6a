"""diffinst inside other programs: a napari plugin, a CVAT function, a Label Studio backend."""
