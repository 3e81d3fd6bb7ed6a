"""How a result was made: what was run, and how long it took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Meta:
    """What was run for one image.

    Attributes:
        steps: Denoising steps; where a run may stop early, those that this image took part in.
        proposals: Boxes of each step.
        kind: The sampler, `ddim` or `search`.
        seed: Of the noise.
        seconds: Wall clock of a prediction that had a budget; None: it had none.
        asked: The budget, in seconds.
        note: What is to be told, such as a budget that no step fits in; empty: nothing.
    """

    steps: int
    proposals: int
    kind: str
    seed: int
    seconds: float | None = None
    asked: float | None = None
    note: str = ""
