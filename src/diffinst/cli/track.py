"""`diffinst predict --track`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from diffinst.cli.terminal import progress_lines, say
from diffinst.config import OptionFields, Reading
from diffinst.inference.predictor import DiffusionInst
from diffinst.inference.track_folder import CTC_FOLDER, Layout, track_folder


def track(
    model: DiffusionInst,
    video: Sequence[str],
    out: Path,
    *,
    layouts: Collection[Layout],
    reading: Reading,
    labels: bool,
    options: OptionFields,
) -> tuple[str, ...]:
    """Track a video, say what was written and where; returns the notes."""
    advance = progress_lines("tracking frame")
    done = track_folder(
        model,
        video,
        out,
        layouts=layouts,
        reading=reading,
        progress=advance,
        labels=labels,
        **options,
    )
    more = {"coco-video": out / "video_results.json", "ctc": out / CTC_FOLDER}
    say(
        f"{done.objects} objects on {done.frames} frames, "
        f"{done.seconds / max(done.frames, 1):.2f} s a frame\n"
        f"overlay    {done.overlay}\ntracks     {out / 'tracks.txt'} (MOT)\n"
        f"results    {out / 'results.json'} (COCO, with track_id)"
        + "".join(f"\n{name:10} {more[name]}" for name in dict.fromkeys(layouts))
    )
    if done.overlay.is_dir():
        say("pip install 'diffinst[video]' writes the overlays as one mp4")
    return done.notes
