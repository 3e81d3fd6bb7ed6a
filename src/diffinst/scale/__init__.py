"""Many images: shards that survive any interruption, on one machine, a Ray cluster or in an array.

Importing this loads neither torch nor pyarrow.

Example:
    >>> from diffinst.scale import predict_dataset
    >>> done = predict_dataset("photos/", "runs/many", workers=2)  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = ["predict_dataset"]

if TYPE_CHECKING:
    from diffinst.scale.dataset import predict_dataset
else:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'diffinst.scale' has no attribute {name!r}")
        return getattr(import_module("diffinst.scale.dataset"), name)
