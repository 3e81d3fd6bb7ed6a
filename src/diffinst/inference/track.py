"""Objects followed through a video: the last frame's boxes begin the next frame's run.

A carried box keeps its row among the proposals, so where the row ends says which object it is; the
overlap of the masks confirms it. Fresh proposals beside the carried ones find what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import SupportsIndex, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import Unpack

from diffinst.config import Config, ConfigError, OptionFields, Options
from diffinst.diffusion.start import Start
from diffinst.inference.identity import Boxes, Identities, assigned
from diffinst.inference.image import EncodedImage
from diffinst.io.images import ImageReadError, ImageSource
from diffinst.results.instances import Instances

STEPS, PROPOSALS = 1, 100
"""Of a frame that follows another; proposals are the fresh ones, beside the carried boxes."""
FIRST_STEPS, FIRST_PROPOSALS = 4, 300
"""At least, of a frame that follows none."""
TIME = 0
"""The time of carried boxes: noise of later ones moves them onto neighbours (docs/diary.md)."""
WEAK = 0.75
"""Fraction of the threshold from which on what is found may be an object that is followed."""
PATIENCE = 3
CLEAR = 0.5
"""Mask IoU from which on an object is where another was: where scenes are crowded many overlap by
`identity.LEAST` by chance (docs/diary.md)."""
CARRIED_BY = 50
"""Carried boxes are filled up to a multiple of this, so that few numbers of proposals occur."""
GRID, ALIKE, FLAT = 16, 0.4, 2.0
"""Frames are compared as GRID x GRID greys; those of one scene correlate by more than ALIKE (0.6
and more five frames apart in the sequences of docs/video.md, other scenes 0.17 at most). A frame
whose greys vary by less than FLAT of 255 says nothing."""

Encode: TypeAlias = Callable[[ImageSource | EncodedImage], EncodedImage]


@dataclass(frozen=True)
class Frame:
    """One frame of a video.

    Attributes:
        index: 0 first.
        result: What was found, with `ids`; its image is remembered.
        note: What is to be told of the frame ("scene change: ..."); empty: nothing.
    """

    index: int
    result: Instances
    note: str = ""


class Tracker:
    """Takes one frame after the other.

    Args:
        config: Of the model.
        patience: Frames that an object may be missed before it ends.
        **options: See `OptionFields`; steps and proposals are those of frames that follow others.

    Raises:
        ConfigError: A value out of range, or a sampler that moves all boxes together.
    """

    def __init__(
        self, config: Config, *, patience: int = PATIENCE, **options: Unpack[OptionFields]
    ) -> None:
        if not isinstance(patience, SupportsIndex) or patience < 0:
            raise ConfigError(f"patience is {patience!r}; give a number of frames, from 0")
        if options.get("kind") not in (None, "search") or options.get("times") is not None:
            raise ConfigError(
                "kind ddim and times bring all boxes to one time, but carried boxes have their "
                "own; track without them"
            )
        if options.get("seconds") is not None or options.get("noises") not in (None, 1):
            raise ConfigError(
                "seconds and noises are for images on their own, but a frame begins with the boxes "
                "of the last one; track without them, and give steps and proposals for speed"
            )
        if options.get("ensemble") not in (None, "all"):
            raise ConfigError(
                f"ensemble is {options['ensemble']}, but tracking goes by all steps of a frame; "
                "omit it"
            )
        given: OptionFields = {**options, "kind": "search", "ensemble": "all"}
        given["steps"] = STEPS if given.get("steps") is None else given["steps"]
        given["proposals"] = PROPOSALS if given.get("proposals") is None else given["proposals"]
        self.options = Options.of(config, **given)
        self.first = self.options.model_copy(
            update={
                "steps": max(FIRST_STEPS, self.options.steps),
                "proposals": max(FIRST_PROPOSALS, self.options.proposals),
            }
        )
        self.identities = Identities(patience)
        self.side, self.names = config.model.diffusion.size_pixels, config.model.names
        self._size: tuple[int, int] | None = None
        self._greys: NDArray[np.float32] | None = None
        self._index = -1

    def take(self, image: EncodedImage) -> tuple[Instances, str]:
        """The objects of the next frame, with ids, and what is to be told of it."""
        self._index += 1
        note, greys = "", _greys(image.image)
        if self._size not in (None, image.size):
            assert self._size is not None
            note = f"{_size(self._size)} before, {_size(image.size)} now: ids start anew"
            self.identities.forget()
            self._greys = None
        self._size = image.size
        other = _other_scene(self._greys, greys)
        ends: Boxes | None = None
        if other or not self.identities.followed:
            found = self._found(image, self.first, None)[0]
        else:
            found, ends = self._followed(image)
        if other and self.identities.followed:
            if self._is_new(found):
                note = "scene change: ids start anew"
                self.identities.forget()
            elif not len(found):
                greys = None  # a flash, or nothing to be seen: wait for what comes next
        self._greys = self._greys if greys is None else greys
        return self.identities.take(found, self.options.threshold, ends), note

    def miss(self) -> Instances | None:
        """The result of a frame that cannot be read: nothing; None: there is no frame before."""
        if self._size is None:
            return None
        self._index += 1
        nothing = Instances.empty(self._size, self.names)
        return self.identities.take(nothing, self.options.threshold)

    def _is_new(self, found: Instances) -> bool:
        """Whether most of what was followed is nowhere among what is found."""
        pairs = assigned(self.identities.likeness(found, None), CLEAR)
        return len(found) > 0 and len(pairs) < len(self.identities.followed) / 2

    def _followed(self, image: EncodedImage) -> tuple[Instances, Boxes]:
        """What is found from where the objects are expected, and where each one's box ended."""
        boxes = self._fitting(self.identities.expected(), image)
        beside = self.options.proposals
        room = -(-len(boxes) // CARRIED_BY) * CARRIED_BY
        options = self.options.model_copy(
            update={"proposals": beside + room, "seed": self.options.seed + self._index}
        )
        return self._found(image, options, Start(boxes, TIME))  # type: ignore[return-value]

    def _fitting(self, boxes: Boxes, image: EncodedImage) -> Boxes:
        """Boxes no larger than a start may be, about the same centres, and none without area."""
        centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        size = np.maximum(size, 1.0)
        if self.side is not None:
            (height, width), inside = image.size, image.encoded.sizes[0]
            ratio = np.array([inside[1] / width, inside[0] / height], np.float32)
            size = np.minimum(size, 0.999 * self.side / ratio)
        return np.concatenate([centre - size / 2, centre + size / 2], 1).astype(np.float32)

    @torch.inference_mode()
    def _found(
        self, image: EncodedImage, options: Options, start: Start | None
    ) -> tuple[Instances, Boxes | None]:
        """What a run finds, weak ones included, and the boxes that its start's rows ended at."""
        options = options.model_copy(update={"threshold": WEAK * options.threshold})
        runner, encoded, size = image.runner, image.encoded, image.size
        pipeline, ends = runner.pipeline(options), None
        with runner.advised([size], options):
            noise = runner.noise([options.seed], options)
            starts = [] if start is None else [start]
            for step in pipeline.run(encoded, noise, starts, [size]):
                if start is not None and step.index == 0:
                    inside = encoded.sizes[0]
                    ratio = np.array([size[1] / inside[1], size[0] / inside[0]], np.float32)
                    reached = step.stages[-1].boxes[0, : len(start)].float().cpu().numpy()
                    ends = reached * np.tile(ratio, 2)
            found = pipeline.instances(step.candidates, encoded, 0, size)
        return replace(found, image=image.image, path=image.path), ends


def track(
    encode: Encode,
    frames: Iterable[ImageSource | EncodedImage],
    tracker: Tracker,
) -> Iterator[Frame]:
    """Each frame with the objects on it, as it comes.

    A frame that cannot be read counts as one on which everything is missed.

    Args:
        encode: Takes a frame through the encoder.
        frames: In order.
        tracker: Fresh.

    Raises:
        ImageReadError: The first frame cannot be read, or there is none.
    """
    index = -1
    for index, source in enumerate(frames):
        try:
            image = encode(source)
        except ImageReadError as error:
            nothing = tracker.miss()
            if nothing is None:
                raise
            yield Frame(index, nothing, f"{error}; taken as a frame without anything on it")
        else:
            result, note = tracker.take(image)
            yield Frame(index, result, note)
    if index < 0:
        raise ImageReadError("frames: there are none; give a video, a folder or some images")


def _greys(image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """(GRID, GRID) greys of mean 0 and standard deviation 1; None: the frame is flat."""
    small = Image.fromarray(image).convert("L").resize((GRID, GRID), Image.Resampling.BOX)
    greys = np.asarray(small, np.float32)
    spread = float(greys.std())
    return None if spread < FLAT else (greys - greys.mean()) / spread


def _other_scene(before: NDArray[np.float32] | None, now: NDArray[np.float32] | None) -> bool:
    """Whether two frames look like two scenes."""
    return before is not None and now is not None and float((before * now).mean()) < ALIKE


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]} (height x width)"
