"""The files of the page, read once: what a client asks for is looked up by name, never opened."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}


@dataclass(frozen=True)
class PageFile:
    """One file of the page."""

    content: bytes
    media_type: str


@lru_cache(maxsize=1)
def page_files() -> dict[str, PageFile]:
    """All files by their name; samples have `samples/` before it."""
    root = resources.files("diffinst.serve") / "page"
    found = {}
    for prefix, folder in (("", root), ("samples/", root / "samples")):
        for file in folder.iterdir():
            suffix = f".{file.name.rpartition('.')[2]}"
            if file.is_file() and suffix in TYPES:
                found[prefix + file.name] = PageFile(file.read_bytes(), TYPES[suffix])
    return found


def samples() -> list[str]:
    """Names of the images that ship with the page."""
    return sorted(name[8:-4] for name in page_files() if name.startswith("samples/"))
