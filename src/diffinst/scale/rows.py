"""A shard's result as a Parquet file: one row per image, in the order of the plan."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from diffinst.io.one_line import one_line
from diffinst.scale.messages import Instance, Row
from diffinst.scale.place import Place, write
from diffinst.scale.remote import tried

if TYPE_CHECKING:
    import pyarrow

FOLDER = "parts"
FINGERPRINT, SHARD = b"diffinst.fingerprint", b"diffinst.shard"
"""Keys of a file's metadata: whose run it belongs to, and which shard it is."""
COMPRESSION = "zstd"
ROW_GROUP = 1024  # rows; what a reader takes into memory at once


class TornPart(ValueError):
    """A part that is not whole, or not what it should be; the message says which and why."""


def need_pyarrow() -> None:
    """Refuse to begin without pyarrow.

    Raises:
        ValueError: Says what to install.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "shards are Parquet files, which need pyarrow; install it: "
            "pip install 'diffinst[scale]'"
        ) from error


def name_of(shard: int) -> str:
    """A part's name in the run's folder.

    Example:
        >>> name_of(3)
        'parts/part-000003.parquet'
    """
    return f"{FOLDER}/part-{shard:06d}.parquet"


def schema() -> pyarrow.Schema:
    """The columns; `box` is x0, y0, x1, y1 in pixels of the image."""
    import pyarrow as pa

    instance = pa.struct(
        [
            ("label", pa.int32()),
            ("score", pa.float32()),
            ("box", pa.list_(pa.float32(), 4)),
            ("rle", pa.string()),
            ("extras", pa.map_(pa.string(), pa.float64())),
        ]
    )
    return pa.schema(
        [
            ("id", pa.string()),
            ("path", pa.string()),
            ("bytes", pa.int64()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("error", pa.string()),
            ("instances", pa.list_(instance)),
        ]
    )


def write_part(where: Place, shard: int, rows: Sequence[Row], fingerprint: str) -> None:
    """Write a shard's rows; the same rows give the same bytes.

    Raises:
        OSError: The disk is full; nothing half-written is left. Or no image of several could be
            fetched, which looks like an outage: rows would make its errors permanent.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if len(rows) > 1 and not any(row.fetched for row in rows):
        raise OSError(
            f"{name_of(shard)}: is not written, because none of its {len(rows)} images can be "
            f"fetched ({rows[0].error}); see that they can be, and run the same command again"
        )
    about = {FINGERPRINT: fingerprint.encode(), SHARD: str(shard).encode()}
    values = [_plain(row) for row in rows]
    table = pa.Table.from_pylist(values, schema=schema().with_metadata(about))
    content = io.BytesIO()  # pyarrow's own errors would hide a full disk's number
    pq.write_table(
        table,
        content,
        compression=COMPRESSION,
        row_group_size=ROW_GROUP,
        write_page_checksum=True,
        store_schema=True,
    )
    write(where, name_of(shard), content.getvalue())


def _plain(row: Row) -> dict[str, object]:
    values = msgspec.to_builtins(row)
    del values["type"], values["fetched"]
    for instance in values["instances"]:
        instance["extras"] = sorted(instance["extras"].items())
    return dict(values)


def check_owner(where: Place, shard: int, fingerprint: str) -> None:
    """Refuse a part that is there but not this run's; reads its footer alone.

    Raises:
        TornPart: It is damaged, or of another run or shard.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = name_of(shard)

    def footer() -> dict[bytes, bytes]:
        with where.open(name) as file:
            return pq.ParquetFile(file).schema_arrow.metadata or {}

    try:
        _check(name, shard, fingerprint, tried(footer))
    except (pa.ArrowException, OSError) as error:
        raise _torn(name, error) from error


def _check(name: str, shard: int, fingerprint: str, about: dict[bytes, bytes]) -> None:
    own = about.get(FINGERPRINT, b"").decode("ascii", "replace")
    if own != fingerprint:
        raise TornPart(f"{name}: belongs to another run; move it away")
    if about.get(SHARD) != str(shard).encode():
        raise TornPart(f"{name}: holds another shard's rows; remove it")


def _torn(name: str, error: Exception) -> TornPart:
    return TornPart(
        f"{name}: is torn or damaged ({one_line(str(error))[:200]}); remove it and run the "
        "same command again"
    )


def read_part(where: Place, shard: int, fingerprint: str) -> Iterator[Row]:
    """A part's rows, a row group at a time, its checksums compared.

    Raises:
        FileNotFoundError: There is none.
        TornPart: It is damaged, or of another run or shard.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = name_of(shard)
    content = where.read(name)
    try:
        file = pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True)
        _check(name, shard, fingerprint, file.schema_arrow.metadata or {})
        for group in range(file.num_row_groups):
            for values in file.read_row_group(group, use_threads=False).to_pylist():
                yield _row(values)
    except (pa.ArrowException, OSError, KeyError, msgspec.ValidationError) as error:
        raise _torn(name, error) from error


def _row(values: dict[str, object]) -> Row:
    instances = values.pop("instances")
    assert isinstance(instances, list)
    found = [msgspec.convert(one | {"extras": dict(one["extras"])}, Instance) for one in instances]
    return msgspec.convert(values | {"type": "Row", "instances": found}, Row)
