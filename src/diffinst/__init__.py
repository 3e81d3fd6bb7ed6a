"""The public names of diffinst, each loaded from its module on first use.

`import diffinst` alone loads neither torch nor pydantic, so it is quick enough for a command line.

Example:
    >>> import diffinst
    >>> [name for name in diffinst.__all__ if name[0].isupper()]
    ['Config', 'DiffusionInst', 'Instances', 'Options', 'Reading', 'Start']
"""

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = [
    "Config",
    "DiffusionInst",
    "Instances",
    "Options",
    "Reading",
    "Start",
    "__version__",
    "evaluate",
    "train",
]
__version__ = "0.2.0"

_HOMES = {
    "Config": "diffinst.config",
    "DiffusionInst": "diffinst.inference.predictor",
    "Instances": "diffinst.results.instances",
    "Options": "diffinst.config",
    "Reading": "diffinst.config",
    "Start": "diffinst.diffusion.start",
    "evaluate": "diffinst.evaluation.evaluate",
    "train": "diffinst.training.train",
}

if TYPE_CHECKING:
    from diffinst.config import Config, Options, Reading
    from diffinst.diffusion.start import Start
    from diffinst.evaluation.evaluate import evaluate
    from diffinst.inference.predictor import DiffusionInst
    from diffinst.results.instances import Instances
    from diffinst.training.train import train
else:  # hidden from type checkers: a module with __getattr__ has every name, typos included

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(
                f"module 'diffinst' has no attribute {name!r}; its public names are "
                f"{', '.join(__all__)}, everything else is imported from its own module"
            )
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value  # so that the next access is a plain one
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
