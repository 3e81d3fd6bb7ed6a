"""The plan of a run: every image once, in a Parquet file, cut into shards by position."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffinst.io.image_error import ImageReadError
from diffinst.scale.inputs import Entry
from diffinst.scale.messages import Item
from diffinst.scale.names import printable
from diffinst.scale.place import Place
from diffinst.scale.remote import tried

if TYPE_CHECKING:
    import pyarrow.parquet

FILE = "plan.parquet"
GROUP = 4096  # rows of a row group
# `use_threads=False`: a thread of pyarrow's that still ends as the process does may abort it.
SMALLEST, LARGEST = 32, 4096  # images of a shard, where nobody says; 32 fill a batch on a GPU
SHARDS = 64  # of a run, before shards get larger than the smallest
EVERY = 100_000  # images between two calls of `progress`


@dataclass(frozen=True)
class Planned:
    """What a plan holds.

    Attributes:
        images: How many.
        repeated: Entries that were left out, because the same path had been listed before.
        digest: Hash of all ids in order.
    """

    images: int
    repeated: int
    digest: str


def image_id(entry: Entry) -> str:
    """An image's id: hash of path, size and time of change.

    Example:
        >>> image_id(Entry("a.png", 10, 5))
        '92cf291f7193895d4b5c1f80ca3ad455'
    """
    text = f"{entry.path}\0{entry.bytes}\0{entry.time}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def image_seed(seed: int, id_: str) -> int:
    """The seed of an image's noise, from the run's seed and the image's id."""
    found = hashlib.blake2b(f"{seed}:{id_}".encode(), digest_size=8).digest()
    return int.from_bytes(found, "little") >> 1  # below 2**63


def usual_shard_size(images: int) -> int:
    """Images of a shard, by the number of all alone: it must not hang on who does them.

    Example:
        >>> [usual_shard_size(n) for n in (10, 100_000, 10_000_000)]
        [32, 1563, 4096]
    """
    return min(LARGEST, max(SMALLEST, -(-images // SHARDS)))


def write_plan(
    where: Place, entries: Iterable[Entry], progress: Callable[[int], None] = lambda done: None
) -> Planned:
    """List the images once, into the plan's file; memory grows by 16 bytes an image.

    Args:
        where: The run's folder.
        entries: As they are listed; a path that comes again is omitted, changed or not.
        progress: Called now and then with the number listed so far.

    Raises:
        ImageReadError: There is no image.
    """
    hashes = array("q")  # of the paths; nearly all differ
    with where.writing(FILE) as target, tempfile.TemporaryDirectory(prefix="diffinst-") as folder:
        first = Path(folder) / FILE
        with _Writer(target) as writer:
            for entry in entries:
                path = printable(entry.path)
                hashes.append(hash(path))
                writer.add(image_id(entry), path, entry.bytes)
                if len(hashes) % EVERY == 0:
                    progress(len(hashes))
        if not hashes:
            raise ImageReadError("there is no image in what was given; check folders and lists")
        again = _repeated(hashes)
        if not again:
            return Planned(writer.count, 0, writer.digest.hexdigest())
        shutil.move(target, first)
        seen: set[str] = set()
        with _Writer(target) as kept:
            for item in _rows(first):
                if hash(item.path) in again:
                    if item.path in seen:
                        continue
                    seen.add(item.path)
                kept.add(item.id, item.path, item.bytes)
        return Planned(kept.count, writer.count - kept.count, kept.digest.hexdigest())


def _repeated(hashes: array[int]) -> set[int]:
    values = np.frombuffer(hashes, dtype=np.int64)
    values = np.sort(values)
    return set(values[1:][values[1:] == values[:-1]].tolist())


class Plan:
    """A plan's file, of which a shard's rows are read alone."""

    def __init__(self, where: Place, shard_size: int) -> None:
        import pyarrow.parquet as pq

        self.shard_size = shard_size
        self._file = pq.ParquetFile(where.open(FILE))
        self.images = int(self._file.metadata.num_rows)

    @property
    def shards(self) -> int:
        """How many."""
        return -(-self.images // self.shard_size)

    def size(self, shard: int) -> int:
        """Images of a shard."""
        return min(self.shard_size, self.images - shard * self.shard_size)

    def shard(self, shard: int) -> list[Item]:
        """A shard's images, in order."""
        begin = shard * self.shard_size
        end = begin + self.size(shard)
        groups = range(begin // GROUP, -(-end // GROUP))
        table = tried(lambda: self._file.read_row_groups(list(groups), use_threads=False))
        rows = table.slice(begin - groups.start * GROUP, end - begin)
        return [Item(**values) for values in rows.to_pylist()]


def digest(where: Place) -> str:
    """The hash of all ids in order, of the file as it is now."""
    import pyarrow.parquet as pq

    found = hashlib.sha256()
    file = pq.ParquetFile(where.open(FILE))
    for batch in file.iter_batches(GROUP, columns=["id"], use_threads=False):
        found.update("".join(batch.column(0).to_pylist()).encode())
    return found.hexdigest()


def _rows(path: Path) -> Iterator[Item]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches(GROUP, use_threads=False):
        yield from (Item(**values) for values in batch.to_pylist())


class _Writer:
    """Writes rows a row group at a time."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        fields = [("id", pa.string()), ("path", pa.string()), ("bytes", pa.int64())]
        self._schema = pa.schema(fields)
        self._file: pyarrow.parquet.ParquetWriter = pq.ParquetWriter(
            path, self._schema, compression="zstd", write_page_checksum=True
        )
        self._ids: list[str] = []
        self._paths: list[str] = []
        self._bytes: list[int | None] = []
        self.count = 0
        self.digest = hashlib.sha256()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._file.close()

    def add(self, id_: str, path: str, size: int | None) -> None:
        self._ids.append(id_)
        self._paths.append(path)
        self._bytes.append(size)
        self.count += 1
        if len(self._ids) == GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._ids:
            return
        columns = [self._ids, self._paths, self._bytes]
        self._file.write_table(pa.table(columns, schema=self._schema), row_group_size=GROUP)
        self.digest.update("".join(self._ids).encode())
        self._ids, self._paths, self._bytes = [], [], []
