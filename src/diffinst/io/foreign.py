"""Names the known formats that are not read, and says what to do with each."""

from __future__ import annotations

from pathlib import Path

_TO_TIFF = "save its image as OME-TIFF, in Fiji or with bfconvert of Bio-Formats"
_FRAMES = "take its frames out first: ffmpeg -i {name} frame-%04d.png"
_KINDS = {
    "czi": ("a Zeiss CZI file", _TO_TIFF),
    "nd2": ("a Nikon ND2 file", _TO_TIFF),
    "lif": ("a Leica LIF file", _TO_TIFF),
    "oib": ("an Olympus file", _TO_TIFF),
    "vsi": ("an Olympus file", _TO_TIFF),
    "ims": ("an Imaris file", _TO_TIFF),
    "dicom": (
        "a DICOM file",
        "save it as TIFF or PNG, or give the array: "
        "model.predict(pydicom.dcmread('{name}').pixel_array)",
    ),
    "nifti": ("a NIfTI volume", "save one slice as TIFF, or give its array"),
    "npy": ("a numpy array", "load it and give the array: model.predict(numpy.load('{name}'))"),
    "npz": (
        "a file of numpy arrays",
        "load it and give one array: model.predict(numpy.load('{name}')['NAME'])",
    ),
    "hdf5": (
        "an HDF5 file",
        "open it and give one image of it: model.predict(h5py.File('{name}')['NAME'][...])",
    ),
    "mat": ("a MATLAB file", "save the image as TIFF or PNG there (imwrite)"),
    "zarr": (
        "a Zarr folder",
        "open it and give one image of it: model.predict(zarr.open('{name}')['0'][...]), indexed "
        "down to height and width",
    ),
    "heic": ("a HEIC photo", "save it as JPEG or PNG"),
    "pdf": ("a PDF document", "save its pages as PNG"),
    "svg": ("a vector drawing", "save it as PNG"),
    "video": ("a video", _FRAMES),
}
_SUFFIXES = {
    ".czi": "czi", ".nd2": "nd2", ".lif": "lif", ".oib": "oib", ".oif": "oib", ".vsi": "vsi",
    ".ims": "ims", ".dcm": "dicom", ".dicom": "dicom", ".nii": "nifti", ".npy": "npy",
    ".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5", ".hdf": "hdf5", ".mat": "mat", ".zarr": "zarr",
    ".heic": "heic", ".heif": "heic", ".pdf": "pdf", ".svg": "svg", ".mp4": "video",
    ".m4v": "video", ".avi": "video", ".mov": "video", ".mkv": "video", ".webm": "video",
    ".wmv": "video", ".mpg": "video", ".mpeg": "video",
}  # fmt: skip
_STARTS = (  # where in the file, what is there, what it is
    (0, b"ZISRAWFILE", "czi"),
    (0, b"\xda\xce\xbe\x0a", "nd2"),
    (128, b"DICM", "dicom"),
    (0, b"\x93NUMPY", "npy"),
    (0, b"\x89HDF\r\n\x1a\n", "hdf5"),
    (0, b"%PDF", "pdf"),
    (4, b"ftyphei", "heic"),
    (4, b"ftypmif1", "heic"),
    (4, b"ftyp", "video"),
    (8, b"AVI ", "video"),
    (0, b"\x1a\x45\xdf\xa3", "video"),
)
_ZARR = (".zarray", ".zgroup", "zarr.json")  # what such a folder holds


def what_it_is(path: Path, *, look: bool = True) -> str | None:
    """What a file that is no image of ours is and what to do, in a line; None: unknown.

    Args:
        path: A file that may be read, or a folder.
        look: Look into it where its name does not tell.
    """
    if path.is_dir():
        kind = "zarr" if any((path / name).is_file() for name in _ZARR) else None
    else:
        kind = "nifti" if path.name.lower().endswith(".nii.gz") else None
        kind = kind or _SUFFIXES.get(path.suffix.lower()) or (_by_start(path) if look else None)
    if kind is None:
        return None
    what, advice = _KINDS[kind]
    return f"is {what}, which is not read; {advice.format(name=path)}"


def _by_start(path: Path) -> str | None:
    with open(path, "rb") as file:
        head = file.read(256)
    return next((k for at, sign, k in _STARTS if head[at : at + len(sign)] == sign), None)
