"""Keeps each client's images and work on disk, in a folder of its own.

A session's id is a secret that its client holds in a cookie; the folder is named by its hash, so
nothing on the disk opens a session. No name that a client sends becomes a path: ids are checked to
be of the form that was given out.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from diffinst.io.atomic import atomic_path, write_json
from diffinst.io.disk import FULL
from diffinst.io.images import Pixels
from diffinst.serve.refusal import Refused
from diffinst.serve.work import Work

SESSION_ID = re.compile(r"[A-Za-z0-9_-]{43}")
IMAGE_ID = re.compile(r"[0-9a-f]{16}")
MOST_NAME = 120  # characters of a file's name that are kept
FOLDER = re.compile(r"[0-9a-f]{32}")  # of a session
TILES = "tiles"  # beside a large image, for those who look at it
DAY = 24 * 3600.0  # seconds
NOTED = 600.0  # seconds after which a further use of a session is noted


@dataclass(frozen=True)
class About:
    """An image of a session; its name is for people, and never a path."""

    id: str
    name: str
    width: int
    height: int
    added: float

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


class Sessions:
    """All sessions in a folder.

    Args:
        folder: Made when the first image comes.
        most_images: Of a session.
        most_bytes: That a session may hold on disk, models that it trained included.
    """

    def __init__(self, folder: Path, most_images: int, most_bytes: int) -> None:
        self.folder, self._most, self._most_bytes = folder, most_images, most_bytes
        self._lock = threading.RLock()

    @staticmethod
    def new_id() -> str:
        """A session id that nobody can guess: 256 random bits."""
        return secrets.token_urlsafe(32)

    def images(self, session: str | None) -> list[About]:
        """A session's images in the order in which they came; none for an unknown session."""
        if session is None or not SESSION_ID.fullmatch(session):
            return []
        found = []
        self._note_use(session)
        for path in self._folder(session).glob("*/about.json"):
            if IMAGE_ID.fullmatch(path.parent.name):
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    found.append(msgspec.json.decode(path.read_bytes(), type=About))
        return sorted(found, key=lambda about: (about.added, about.id))

    def works(self, session: str | None) -> list[tuple[About, Work]]:
        """The same with the work on each."""
        found = []
        for about in self.images(session):
            with contextlib.suppress(Refused, FileNotFoundError):  # removed meanwhile
                found.append((about, self.work(session, about.id)))
        return found

    def add(self, session: str, pixels: Pixels, name: str) -> About:
        """Take an image into a session.

        Args:
            session: Its id.
            pixels: RGB.
            name: What the client calls it.

        Raises:
            Refused: The session holds as much as it may, or the disk is full.
        """
        height, width = pixels.shape[:2]
        with self._lock:
            if len(self.images(session)) >= self._most:
                raise Refused(409, f"this session holds {self._most} images; delete some first")
            shown = "".join(c for c in name if c.isprintable())[-MOST_NAME:] or "image"
            about = About(secrets.token_hex(8), shown, width, height, time.time())
            place = self._folder(session) / about.id
            try:
                with room():
                    with atomic_path(place / "image.png") as temporary:
                        Image.fromarray(pixels).save(temporary, format="PNG", compress_level=1)
                    self.check_room(session)
                    write_json(place / "work.json", Work().to_json())
                    write_json(place / "about.json", asdict(about))  # last: now it is there
            except BaseException:
                shutil.rmtree(place, ignore_errors=True)
                raise
        return about

    def about(self, session: str | None, image: str) -> About:
        """An image of a session.

        Raises:
            Refused: 404; another session's image reads the same as none.
        """
        file = self._place(session, image) / "about.json"
        return msgspec.json.decode(file.read_bytes(), type=About)

    def file(self, session: str | None, image: str) -> Path:
        """Its pixels as a PNG file.

        Raises:
            Refused: As in `about`.
        """
        return self._place(session, image) / "image.png"

    def pixels(self, session: str | None, image: str) -> Pixels:
        """Its pixels, RGB.

        Raises:
            Refused: As in `about`.
        """
        with Image.open(self.file(session, image)) as opened:
            pixels: Pixels = np.array(opened.convert("RGB"))
        return pixels

    def work(self, session: str | None, image: str) -> Work:
        """The work on it so far.

        Raises:
            Refused: As in `about`.
        """
        file = self._place(session, image) / "work.json"
        return Work.from_json(json.loads(file.read_text("utf-8")))

    def change(
        self,
        session: str | None,
        image: str,
        change: Callable[[Work], Work],
        revision: int | None = None,
    ) -> Work:
        """Change the work on an image, wholly or not at all.

        Args:
            session: Its id.
            image: Its id.
            change: From what is there to what is to be.
            revision: Of the work that the client has seen; None: any.

        Raises:
            Refused: As in `about`; 409 where somebody changed it since; 413 and 507 as in `add`.
        """
        with self._lock:
            before = self.work(session, image)
            if revision is not None and revision != before.revision:
                raise Refused(
                    409, "this image was changed elsewhere, in another tab perhaps; it is shown "
                    "as it is now: try again"
                )  # fmt: skip
            try:
                after = change(before)
            except KeyError as error:
                raise Refused(409, str(error.args[0])) from error
            if after is not before:
                if len(after.objects) > len(before.objects):  # nobody is kept from deleting
                    self.check_room(session or "")
                with room():
                    write_json(self._place(session, image) / "work.json", after.to_json())
        return after

    def remove(self, session: str | None, image: str) -> None:
        """Remove an image with all work on it.

        Raises:
            Refused: As in `about`.
        """
        with self._lock:
            place = self._place(session, image)
            (place / "about.json").unlink(missing_ok=True)  # first: now it is gone
            shutil.rmtree(place, ignore_errors=True)

    def check_room(self, session: str, without: Iterable[Path] = ()) -> None:
        """Refuse what is too much for one session.

        Args:
            session: Its id.
            without: Folders in it that are about to go.

        Raises:
            Refused: 413: it holds more than it may.
        """
        held = bytes_in(self._folder(session)) - sum(map(bytes_in, without))
        if held > self._most_bytes:
            raise Refused(
                413, f"this session would hold {held / 1e6:,.1f} MB on the server's disk; allowed "
                f"are {self._most_bytes / 1e6:,.1f} MB: remove images that are done"
            )  # fmt: skip

    def remove_unused(self, days: float, in_use: Callable[[Path], bool]) -> int:
        """Remove the sessions that nobody used for some days; how many.

        Args:
            days: 0: none is removed.
            in_use: Whether the session in a folder is at work all the same.
        """
        if days <= 0 or not self.folder.is_dir():
            return 0
        removed = 0
        for folder in self.folder.iterdir():
            if not FOLDER.fullmatch(folder.name) or not folder.is_dir():
                continue
            with self._lock:
                if time.time() - folder.stat().st_mtime > days * DAY and not in_use(folder):
                    shutil.rmtree(folder, ignore_errors=True)
                    removed += 1
        return removed

    def folder_of(self, session: str) -> Path:
        """A session's folder; images lie in it by their ids.

        Raises:
            Refused: 404: no id that was given out.
        """
        if not SESSION_ID.fullmatch(session):
            raise Refused(404, "there is no such session; add an image first: POST /images")
        return self._folder(session)

    def _note_use(self, session: str) -> None:
        """The time of the folder is the time of the last use, about."""
        folder = self._folder(session)
        with contextlib.suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > NOTED:
                os.utime(folder)

    def _folder(self, session: str) -> Path:
        return self.folder / hashlib.sha256(session.encode()).hexdigest()[:32]

    def _place(self, session: str | None, image: str) -> Path:
        known = session is not None and SESSION_ID.fullmatch(session)
        if known and IMAGE_ID.fullmatch(image):
            place = self._folder(session or "") / image
            self._note_use(session or "")
            if (place / "about.json").is_file():
                return place
        raise Refused(404, "there is no such image in this session; add it first: POST /images")


def bytes_in(folder: Path) -> int:
    """Of all files below a folder but tiles, which can be made again; 0 where there is none."""
    total = 0
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(TILES)]
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # a temporary file, renamed since
                total += os.stat(os.path.join(place, name)).st_size
    return total


class room:
    """`with room():` a full disk is a status of its own."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.errno in (*FULL, errno.EFBIG):
            raise Refused(
                507, "the server's disk is full; nothing was changed: free some space there"
            ) from error
