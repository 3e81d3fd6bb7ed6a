"""What clients are told of predictions and of work: as JSON, and as events of a stream."""

from __future__ import annotations

import json
from dataclasses import asdict

from diffinst.serve.engine import Done, Encoded, Step
from diffinst.serve.work import Object, Work

Answer = dict[str, object]


def event(item: Encoded | Step | Done) -> str:
    """An item of a stream as a server-sent event."""
    data: Answer
    match item:
        case Encoded(seconds=seconds):
            kind, data = "encoded", {"seconds": seconds}
        case Step():
            objects = [_object(one) for one in item.objects]
            kind, data = "step", {"step": item.step, "seconds": item.seconds, "objects": objects}
        case Done():
            kind, data = "done", done(item)
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


def failure(detail: str) -> str:
    """The event that says why a stream ends."""
    return f"event: error\ndata: {json.dumps({'detail': detail})}\n\n"


def done(item: Done) -> Answer:
    """The end of a request for work."""
    return {
        "seconds": item.seconds,
        "steps": item.steps,
        "proposals": item.proposals,
        "note": item.note,
        "answers": item.answers,
        **told(item.work, item.classes),
    }


def told(work: Work, classes: tuple[str, ...] | None) -> Answer:
    """The present state of the work on an image.

    Args:
        work: On it.
        classes: Of the model that made it, as `Models.classes` knows them.
    """
    return {
        "objects": [_object(one) for one in work.current],
        "revision": work.revision,
        "can_undo": bool(work.past),
        "can_redo": bool(work.future),
        "accepted": work.accepted,
        "model": work.model,
        "classes": list(classes or ()),
    }


def _object(one: Object) -> Answer:
    return asdict(one)
