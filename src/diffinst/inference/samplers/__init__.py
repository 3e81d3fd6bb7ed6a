"""Which boxes a step starts from, after what the step before made of its own: one file each."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol

from torch import Tensor

from diffinst.diffusion.start import Start
from diffinst.structures import Encoded, StageOutput


class Sampler(Protocol):
    """Leads the proposals of a run from step to step."""

    def times(self, starts: Sequence[Start] = ()) -> list[tuple[int, int]]:
        """(now, next) of each step; next is -1 in the last.

        Args:
            starts: What the run begins with, one per image; none: noise alone.

        Raises:
            ValueError: Starts and options do not go together; says how.
        """
        ...

    def begin(
        self,
        starts: Sequence[Start],
        outputs: Sequence[tuple[int, int]],
        encoded: Encoded,
        noise: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Signal and times of the first step.

        Args:
            starts: One per image, in pixels of the original images; or none.
            outputs: (height, width) of the original images.
            encoded: The images.
            noise: (B, N, 4) x_T.

        Returns:
            x (B, N, 4), and t: (B,) one time an image, or (B, N) one a proposal.

        Raises:
            ValueError: A start that does not fit; says how.
        """
        ...

    @property
    def key(self) -> Hashable:
        """All that `kept` and `advance` depend on: samplers of one key do the same."""
        ...

    def kept(self, last: StageOutput) -> Tensor:
        """(B, N) bool, which proposals go on after a step that made `last` of its boxes."""
        ...

    def advance(
        self,
        x: Tensor,
        last: StageOutput,
        kept: Tensor,
        scale: Tensor,
        renoise: Tensor,
        fresh: Tensor,
        *,
        now: int,
        following: int,
    ) -> Tensor:
        """x (B, N, 4) of the next step, in fixed shapes.

        Args:
            x: (B, N, 4) signal that the step started from.
            last: What it made of it.
            kept: (B, N) bool from `kept`.
            scale: (B, 1, 4) (w, h, w, h) of the images.
            renoise: (B, N, 4) N(0, 1).
            fresh: (B, N, 4) starts from noise.
            now: Time of the step.
            following: Time of the next one.
        """
        ...
