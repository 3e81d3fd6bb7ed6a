"""Is a known format that is not read called by its name, with what to do?"""

from pathlib import Path

import numpy as np
import pytest

from diffinst.io.images import ImageReadError, list_images, read_image

STARTS = {
    b"ZISRAWFILE": "a Zeiss CZI file, which is not read; save its image as OME-TIFF, in Fiji",
    b"\xda\xce\xbe\x0a": "a Nikon ND2 file",
    b"\0" * 128 + b"DICM": "a DICOM file.*pixel_array",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file.*h5py",
    b"\0\0\0\x18ftypmp42": "a video, which is not read; take its frames out first: ffmpeg -i",
    b"RIFF\0\0\0\0AVI LIST": "a video",
    b"\x1a\x45\xdf\xa3": "a video",
    b"\0\0\0\x18ftypheic": "a HEIC photo",
}


@pytest.mark.parametrize(("start", "what"), STARTS.items())
def test_first_bytes_tell(tmp_path: Path, start: bytes, what: str) -> None:
    (tmp_path / "file").write_bytes(start + b"\1" * 64)
    with pytest.raises(ImageReadError, match=rf"file: is {what}"):
        read_image(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a.CZI", "a Zeiss CZI file"),
        ("a.lif", "a Leica LIF file"),
        ("a.dcm", "a DICOM file"),
        ("a.nii.gz", "a NIfTI volume"),
        ("a.h5", "an HDF5 file"),
        ("a.mp4", r"a video.*ffmpeg -i .*a\.mp4 frame-%04d\.png"),
        ("a.mov", "a video"),
        ("a.mpg", "a video"),
    ],
)
def test_the_name_tells(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / name).write_bytes(b"\0\0\1\xb3" * 32)
    with pytest.raises(ImageReadError, match=rf"is {what}"):
        read_image(tmp_path / name)


def test_numpy_files_say_how_to_give_the_array(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 4)))
    (tmp_path / "b").write_bytes((tmp_path / "a.npy").read_bytes())
    for name in ("a.npy", "b"):
        message = rf"{name}: is a numpy array, .*model\.predict\(numpy\.load\('.*{name}'\)\)"
        with pytest.raises(ImageReadError, match=message):
            read_image(tmp_path / name)


@pytest.mark.parametrize("mark", [".zarray", ".zgroup", "zarr.json"])
def test_a_zarr_folder_is_no_folder_of_images(tmp_path: Path, mark: str) -> None:
    folder = tmp_path / "a.zarr"
    folder.mkdir()
    (folder / mark).write_text("{}")
    for look in (read_image, list_images):
        with pytest.raises(ImageReadError, match=r"a\.zarr: is a Zarr folder, .*zarr\.open"):
            look(str(folder))
