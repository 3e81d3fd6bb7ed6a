"""Which detectors of other libraries are known by name, and how their tensors get here."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from torch import Tensor

from diffinst.io.one_line import first_line
from diffinst.weights.foreign import read_foreign
from diffinst.weights.store import WEIGHTS_FILE, CheckpointError

TORCHVISION = ("maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2")
MASK2FORMER = tuple(
    f"facebook/mask2former-swin-{size}-coco-instance" for size in ("tiny", "small", "base", "large")
)
KNOWN = (*(f"torchvision:{n}" for n in TORCHVISION), *(f"transformers:{n}" for n in MASK2FORMER))
TIMEOUT = 10.0  # seconds without an answer


def is_name(source: str) -> bool:
    """Whether this looks like `library:model` and not like a path."""
    return re.match(r"[A-Za-z]\w+:", source) is not None


def fetch(name: str) -> dict[str, Tensor]:
    """The tensors of a detector, from its library's cache or, the first time, its server.

    Args:
        name: `torchvision:MODEL`, one of those known, or `transformers:OWNER/NAME`, any Mask2Former
            with a Swin.

    Raises:
        CheckpointError: Unknown, or not to be had; says what is known.
    """
    library, _, model = name.partition(":")
    if library == "torchvision" and model in TORCHVISION:
        return _torchvision(name, model)
    if library == "transformers" and model.count("/") == 1:
        return _transformers(name, model)
    lowered = {known.lower(): known for known in KNOWN}
    by_end = {known.split("/")[-1].split(":")[-1].lower(): known for known in KNOWN}
    close = get_close_matches(name.lower(), lowered, n=1, cutoff=0.75)
    meant = by_end.get(model.lower()) or (lowered[close[0]] if close else None)
    raise CheckpointError(
        f"no weights '{name}'{f'; did you mean {meant!r}?' if meant else ';'} "
        f"known are {', '.join(KNOWN)}, and any other transformers:OWNER/NAME of a Mask2Former "
        "with a Swin"
    )


def _torchvision(name: str, model: str) -> dict[str, Tensor]:
    import torchvision

    weights = torchvision.models.get_model_weights(model).DEFAULT
    try:
        with _impatient():
            state: dict[str, Tensor] = weights.get_state_dict(
                progress=True, check_hash=True, weights_only=True, map_location="cpu"
            )
    except Exception as error:  # of the server, the network, the disk or the file, of any kind
        raise _unavailable(name, weights.url, error) from error
    return state


def _transformers(name: str, model: str) -> dict[str, Tensor]:
    import huggingface_hub as hub

    url = hub.hf_hub_url(model, WEIGHTS_FILE)
    try:
        file = hub.try_to_load_from_cache(model, WEIGHTS_FILE)
        if not isinstance(file, str):
            hub.get_hf_file_metadata(url, timeout=TIMEOUT)  # fails at once where the download waits
            file = hub.hf_hub_download(model, WEIGHTS_FILE)
    except Exception as error:  # of the hub's client, of any kind
        raise _unavailable(name, url, error) from error
    return read_foreign(file)


def _unavailable(name: str, url: str, error: Exception) -> CheckpointError:
    reason = first_line(error)
    known = "" if name in KNOWN else f"; known are {', '.join(KNOWN)}"
    return CheckpointError(
        f"{name} cannot be loaded ({reason}); fetch {url} elsewhere, copy it here and give the "
        f"file: --from FILE{known}"
    )


@contextmanager
def _impatient() -> Iterator[None]:
    """New connections give up after `TIMEOUT` seconds of silence: torch's downloads never do."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
