"""What makes a run this one: weights, settings, seed, version. Another run's folder is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from diffinst.scale.place import Place

FILE = "run.json"
FORMAT = 1
"""Of the files in a run's folder; another one is another run."""
_BLOCK = 1 << 20
_LISTED = ("asked", "root", "images", "repeated", "shard_size", "plan")  # no part of the hash


class AnotherRun(ValueError):
    """A folder holds another run; the message names what differs."""


@dataclass(frozen=True)
class Run:
    """A run, as its folder remembers it.

    Attributes:
        weights: Hash of the file.
        config: Hash of the model's whole configuration.
        device: cpu or cuda; their results differ in the last digits.
        precision: fp32 or bf16.
        options: Of all predictions.
        reading: How images are read.
        seed: An image's own follows from it and the image's id.
        classes: Names of the labels.
        asked: What was given as images.
        root: What relative paths start from.
        images: How many, each once.
        repeated: Listed again and omitted.
        shard_size: Images of a shard.
        plan: Hash of all ids.
        version: Of the package.
        format: Of the files.
    """

    weights: str
    config: str
    device: str
    precision: str
    options: dict[str, object]
    reading: dict[str, object]
    seed: int
    classes: tuple[str, ...]
    asked: tuple[str, ...] = ()
    root: str = ""
    images: int = 0
    repeated: int = 0
    shard_size: int = 0
    plan: str = ""
    version: str = field(default_factory=lambda: version("diffinst"))
    format: int = FORMAT

    @property
    def fingerprint(self) -> str:
        """Hash of all that results hang on, the plan's ids and the size of shards included."""
        values = asdict(self)
        for name in set(_LISTED) - {"shard_size", "plan"}:
            del values[name]
        text = json.dumps(values, sort_keys=True, default=list)
        return hashlib.sha256(text.encode()).hexdigest()

    def check(self, asked: Run, where: Place) -> None:
        """Refuse to go on with this folder's run as with another one.

        Args:
            asked: The run of now; shard_size 0: as the folder has it.
            where: The folder, for the message.

        Raises:
            AnotherRun: Names what differs, was and is.
        """
        mine, theirs = _flat(self), _flat(asked)
        ours = {"images", "repeated", "plan", *(["shard_size"] if not asked.shard_size else [])}
        different = [
            f"{name} was {_short(mine.get(name))}, is {_short(theirs.get(name))}"
            for name in sorted(mine.keys() | theirs.keys())
            if name not in ours and mine.get(name) != theirs.get(name)
        ]
        if different:
            raise AnotherRun(
                f"{where}: holds another run ({'; '.join(different[:4])}"
                f"{'; ...' if len(different) > 4 else ''}); choose another --out, or give the "
                "same model, images and options"
            )


def load(where: Place) -> Run | None:
    """The run of a folder; None: there is none yet.

    Raises:
        AnotherRun: The file is damaged, or another version's.
    """
    try:
        content = where.read(FILE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        values = json.loads(content)
        values |= {name: tuple(values[name]) for name in ("classes", "asked")}
        return Run(**values)
    except (ValueError, TypeError, KeyError) as error:
        raise AnotherRun(
            f"{where}/{FILE}: is damaged, or of another version ({error}); choose another --out"
        ) from error


def loaded(where: Place) -> Run:
    """The run of a folder that has to be there.

    Raises:
        AnotherRun: It is not.
    """
    found = load(where)
    if found is None:
        raise AnotherRun(
            f"{where}: holds no {FILE}; name the --out of `diffinst predict ... --shards`"
        )
    return found


def save(where: Place, run: Run) -> Run:
    """Remember a run in its folder, unless there is one; gives the one that is there then."""
    text = json.dumps(asdict(run), indent=2, ensure_ascii=False)
    where.create(FILE, f"{text}\n".encode("utf-8", "backslashreplace"))
    return loaded(where)


def hash_of(file: Path) -> str:
    """sha256 of a file."""
    found = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def _flat(run: Run) -> dict[str, object]:
    values = asdict(run)
    inner: dict[str, object] = {}
    for part in ("options", "reading"):
        inner |= values.pop(part)
    return json.loads(json.dumps(values | inner, default=list))  # type: ignore[no-any-return]


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"
