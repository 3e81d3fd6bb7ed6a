"""The public model: `DiffusionInst` turns images into instances."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, overload

from typing_extensions import Unpack

from diffinst.config import OptionFields, Options, Reading
from diffinst.diffusion.start import Start
from diffinst.inference.image import EncodedImage, encode_each
from diffinst.inference.many import Read, SeedOf, predict_each
from diffinst.inference.pretrained import Pretrained
from diffinst.inference.sources import files_of, is_one, path_of, refuse_one
from diffinst.inference.tile_plan import Skip, TileRequest
from diffinst.inference.tiles import TiledPrediction, start_tiles
from diffinst.inference.trace import TracePoint
from diffinst.inference.track import PATIENCE, Frame, Tracker, track
from diffinst.io.images import ImageReadError, ImageSource, read
from diffinst.io.video import frames_of
from diffinst.io.windows import WindowedImage
from diffinst.results.instances import Instances

Source = TypeVar("Source", bound=ImageSource)


class DiffusionInst(Pretrained):
    """Instance segmentation by denoising boxes and filters.

    Make one with `from_pretrained` or `from_preset`. Steps and proposals are free at inference: any
    number works with the same weights. Calling the model predicts.

    Attributes:
        network: The torch module.
        config: Everything saved with the weights; defaults of `predict` come from it.
        precision: What `optimize` chose, fp32 or bf16; None: the weights as they were saved.
        card: Licence, data and metrics, as saved with the weights; `save_pretrained` and
            `push_to_hub` write them down. Assign `diffinst.weights.card.Card(...)` to say more.
        front: What steps and proposals are worth, for predictions with `seconds`.
    """

    @overload
    def encode(
        self, image: ImageSource | EncodedImage, *, reading: Reading | None = None
    ) -> EncodedImage: ...

    @overload
    def encode(
        self, image: list[Source] | tuple[Source, ...], *, reading: Reading | None = None
    ) -> list[EncodedImage]: ...

    def encode(
        self,
        image: ImageSource | EncodedImage | list[Source] | tuple[Source, ...],
        *,
        reading: Reading | None = None,
    ) -> EncodedImage | list[EncodedImage]:
        """Take an image through the encoder once; then ask it as often as you like.

        Args:
            image: As in `predict`, one image; a list of images gives a list, and those of one
                padded size share a batch, as in `predict`.
            reading: As in `predict`.

        Raises:
            ImageReadError: It cannot be read; names it.
            ValueError: An image that another model has encoded.

        Example:
            >>> import torch
            >>> model = DiffusionInst.from_preset("tiny")
            >>> image = model.encode(torch.zeros(3, 48, 64, dtype=torch.uint8))
            >>> image.predict(steps=2).image_size
            (48, 64)
        """
        if isinstance(image, EncodedImage):
            if reading is not None:
                raise ValueError(f"{image} has been read already; give `reading` to encode")
            return image if image.runner is self._runner() else self._adopted(image)
        images: Sequence[ImageSource] = image if isinstance(image, list | tuple) else [image]
        pixels = []
        for one in images:
            content, notes = read(one, self._reading(reading))
            for text in notes:
                _warn(text)
            pixels.append(content)
        encoded = encode_each(self._runner(), pixels, [path_of(one) for one in images])
        return encoded if isinstance(image, list | tuple) else encoded[0]

    def batch_of(self, size: tuple[int, int]) -> tuple[tuple[int, int], int]:
        """With which images one of some size shares a batch.

        Args:
            size: (height, width) of an image.

        Returns:
            (height, width) of the padded network input, and how many such images go through the
            network together at most; 1 on CPUs, where a batch is slower.
        """
        padded = self._runner().padded(size)
        return padded, self._runner().at_once_of(padded)

    def _adopted(self, image: EncodedImage) -> EncodedImage:
        """An image that was encoded before configuration or device changed, if it still fits."""
        before, runner = image.runner, self._runner()
        same_input = before.config.preprocess == runner.config.preprocess
        if before.network is not self.network:
            problem = "by another model"
        elif image.encoded.scale.device != self.device or not same_input:
            problem = "on another device, or read or resized in another way"
        else:
            return EncodedImage(runner, image.encoded, image.image, image.path)
        raise ValueError(
            f"{image} was encoded {problem}; encode it anew: model.encode(image.image)"
        )

    @overload
    def predict(  # type: ignore[overload-overlap]  # an array is iterable, too
        self,
        images: ImageSource | EncodedImage,
        *,
        start: Start | None = None,
        reading: Reading | None = None,
        **options: Unpack[OptionFields],
    ) -> Instances: ...

    @overload
    def predict(  # type: ignore[overload-overlap]  # a list gives a list
        self,
        images: list[Source] | tuple[Source, ...],
        *,
        keep_images: bool = False,
        reading: Reading | None = None,
        **options: Unpack[OptionFields],
    ) -> list[Instances]: ...

    @overload
    def predict(
        self,
        images: Iterable[ImageSource],
        *,
        keep_images: bool = False,
        reading: Reading | None = None,
        **options: Unpack[OptionFields],
    ) -> Iterator[Instances]: ...

    def predict(
        self,
        images: ImageSource | EncodedImage | Iterable[ImageSource],
        *,
        start: Start | None = None,
        keep_images: bool = False,
        reading: Reading | None = None,
        **options: Unpack[OptionFields],
    ) -> Instances | list[Instances] | Iterator[Instances]:
        """Segment an image, a list of them, a folder, or as many as an iterable gives.

        Every image starts from the same noise, given by `seed`, so many give what each gives alone,
        to rounding. Images of one padded size share a batch; the next ones are read meanwhile.

        Args:
            images: Path, PIL image, array (H, W, 3) or (H, W), tensor (3, H, W); or a list of
                these, sizes may differ; or a folder, a pattern such as "scans/*.png", a generator:
                these give an iterator, and a bounded number of images is in memory; or one image
                from `encode`.
            start: Boxes to begin with, in pixels of the original image, for one image alone.
            keep_images: Many results keep their image, too, as one does.
            reading: Page, channel or projection, and how values of more than 8 bits become 8; what
                is not set is as `config.preprocess` says.
            **options: See `OptionFields`: steps, proposals, threshold, max_detections, seed, ...

        Returns:
            `Instances` in the pixels of the original image; a list of them for a list; an iterator
            of them for folders, patterns and iterables. A file of a folder or pattern that cannot
            be read is omitted with a warning; `path` tells which result is whose.

        Raises:
            ImageReadError: An image cannot be read; names it.
            ConfigError: A value out of range; names it.
            MemoryError: Says what to lower, and by how much.
        """
        files = files_of(images)
        if files is None and is_one(images):
            chosen, since = Options.of(self.config, **options), self._runner().budget.clock()
            image = self.encode(images, reading=reading)  # type: ignore[arg-type]
            return image.answer(start, chosen, since)
        if start is not None:
            raise ValueError("a start is for one image; give it with each image on its own")
        chosen = Options.of(self.config, **options)
        sources: Iterable[ImageSource] = images if files is None else files  # type: ignore[assignment]
        found = self._many(
            sources, chosen, keep_images, self._reading(reading), skip=files is not None
        )
        return list(found) if isinstance(images, list | tuple) else found

    __call__ = predict

    def _many(
        self,
        sources: Iterable[ImageSource],
        options: Options,
        keep_images: bool,
        reading: Reading,
        *,
        skip: bool,
    ) -> Iterator[Instances]:
        for _, found in self._each(sources, options, keep_images, reading, _warn):
            if not isinstance(found, ImageReadError):
                yield found
            elif skip:
                _warn(f"omitted: {found}")
            else:
                raise found

    def predict_each(
        self,
        sources: Iterable[Source],
        *,
        keep_images: bool = False,
        reading: Reading | None = None,
        note: Callable[[str], None] | None = None,
        seed_of: SeedOf[Source] | None = None,
        read_by: Read[Source] | None = None,
        **options: Unpack[OptionFields],
    ) -> Iterator[tuple[Source, Instances | ImageReadError]]:
        """Each image with its result, in order; one that cannot be read comes with its error.

        So does one that, alone, does not fit in memory: an `ImageTooLarge`.

        Args:
            sources: Images as in `predict`, any number; they are asked for as they are needed.
            keep_images: Results keep their image.
            reading: As in `predict`.
            note: Gets what is to be told of how images were read; None: they become warnings.
            seed_of: The seed of each image's noise; None: that of the options for all.
            read_by: Reads a source; None: `io.images.read`.
            **options: See `OptionFields`.

        Raises:
            ConfigError: A value out of range; names it.
        """
        chosen = Options.of(self.config, **options)
        return self._each(
            sources,
            chosen,
            keep_images,
            self._reading(reading),
            note or _warn,
            seed_of=seed_of,
            read_by=read_by,
        )

    def _each(
        self,
        sources: Iterable[Source],
        options: Options,
        keep_images: bool,
        reading: Reading,
        note: Callable[[str], None],
        *,
        seed_of: SeedOf[Source] | None = None,
        read_by: Read[Source] | None = None,
    ) -> Iterator[tuple[Source, Instances | ImageReadError]]:
        each = predict_each(
            self._runner(), sources, options, reading, note, seed_of=seed_of, read_by=read_by
        )
        for source, pixels, found in each:
            if isinstance(found, Instances):
                kept, path = pixels if keep_images else None, path_of(source)
                found = replace(found, image=kept, path=path, reading=reading)
            yield source, found

    def predict_tiles(
        self,
        source: ImageSource | WindowedImage,
        *,
        tile: int = 1024,
        overlap: int = 128,
        batch: int | None = None,
        mpp: float | None = None,
        object_size: float | None = None,
        level: int | None = None,
        skip: Skip = "auto",
        reading: Reading | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        **options: Unpack[OptionFields],
    ) -> TiledPrediction:
        """Segment an image of any size tile by tile: an iterator of `Instances` in its pixels.

        Windows are read, never the whole, and memory does not grow with the image. Each object
        comes once, as soon as the tiles around it are done. Every tile has the model's zoom; its
        proposals grow with its area.

        Args:
            source: A slide, TIFF, GeoTIFF, OME-Zarr, or an image as in `predict`.
            tile: Side of a tile, in pixels at the model's scale.
            overlap: What neighbours share; objects larger than it are stitched.
            batch: Tiles that go through the network together.
            mpp: Micrometres per pixel, in place of what the file says.
            object_size: Typical diameter of the objects, in the image's pixels.
            level: Of the file's pyramid, to be taken as the model's scale.
            skip: Tiles that are passed over: "flat", without "tissue", "none"; "auto": tissue for
                slides, else flat.
            reading: As in `predict`; one stretch holds for the whole image.
            progress: Called with (tiles done, tiles in all); what it raises ends the run.
            **options: See `OptionFields`.

        Raises:
            ImageReadError: It cannot be read, or a package is missing; says which.
            ConfigError: A value out of range; names it.
        """
        request = TileRequest(tile, overlap, batch, mpp, object_size, level, skip)
        reading = self._reading(reading)
        return start_tiles(self._runner(), source, request, reading, options, progress)

    def stream(
        self,
        image: ImageSource | EncodedImage,
        *,
        start: Start | None = None,
        reading: Reading | None = None,
        **options: Unpack[OptionFields],
    ) -> Iterator[Instances]:
        """The instances of an image after each step, the best so far; stop at any time.

        Args:
            image: As in `predict`, one image.
            start: Boxes to begin with, in pixels of the original image.
            reading: As in `predict`.
            **options: See `OptionFields`.

        Raises:
            ImageReadError: It cannot be read; names it.
            ConfigError: A value out of range; names it.

        Example:
            >>> import torch
            >>> model = DiffusionInst.from_preset("tiny")
            >>> blank = torch.zeros(3, 48, 64, dtype=torch.uint8)
            >>> len(list(model.stream(blank, steps=3)))
            3
        """
        return self.encode(image, reading=reading).stream(start=start, **options)

    def track(
        self,
        frames: str | Path | Iterable[ImageSource | EncodedImage],
        *,
        patience: int = PATIENCE,
        reading: Reading | None = None,
        note: Callable[[str], None] | None = None,
        **options: Unpack[OptionFields],
    ) -> Iterator[Frame]:
        """Follow objects through a video: each frame's result has `ids`, the same for one object.

        A frame begins with the boxes of the last one, so one step of 100 fresh boxes will do; the
        first one, and one of another scene, gets four steps of 300 at least. Objects are never
        given the id of one that has ended.

        Args:
            frames: A video, a folder of frames, a TIFF or GIF of several pages, or an iterable of
                images as in `predict`, encoded ones too. Frames are asked for as they are needed.
            patience: Frames that an object may be missed before it ends.
            reading: As in `predict`.
            note: Gets what is to be told of how files were read; None: it becomes a warning.
            **options: See `OptionFields`; steps are 1 and proposals 100 where nothing is said, and
                the sampler is `search`.

        Raises:
            ImageReadError: There are no frames, or the first cannot be read.
            ConfigError: A value out of range; names it.

        Example:
            >>> import torch
            >>> model = DiffusionInst.from_preset("tiny")
            >>> blank = torch.zeros(3, 48, 64, dtype=torch.uint8)
            >>> first, second = model.track([blank, blank], proposals=20)
            >>> len(second.result.ids) == len(second.result)
            True
        """
        tracker, tell = Tracker(self.config, patience=patience, **options), note or _warn
        each = self._reading(reading)
        if isinstance(frames, str | Path):
            frames, each = frames_of(frames, each, tell)
        refuse_one(frames)

        def encode(frame: ImageSource | EncodedImage) -> EncodedImage:
            return self.encode(frame, reading=reading if isinstance(frame, EncodedImage) else each)

        return track(encode, frames, tracker)

    def trace(
        self,
        image: ImageSource | EncodedImage,
        *,
        reading: Reading | None = None,
        **options: Unpack[OptionFields],
    ) -> list[TracePoint]:
        """Everything between noise and result: what enters each step, and each stage's output.

        Args:
            image: As in `predict`, one image.
            reading: As in `predict`.
            **options: See `OptionFields`.

        Returns:
            For each step: stage -1 (boxes only), then stages 0, 1, ... with masks; not filtered by
            score, NMS applied.
        """
        encoded = self.encode(image, reading=reading)
        return [p for points, _ in encoded.trace(**options) for p in points]


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)  # one place for all: a text is shown once
