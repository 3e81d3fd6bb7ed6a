"""The addresses of training on what a session corrected: what there is, start, go on, stop."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from diffinst.serve.answers import Answer
from diffinst.serve.corrected import LEAST, Corrected, corrected
from diffinst.serve.refusal import Refused
from diffinst.serve.requests import TrainAsked
from diffinst.serve.serving import Serving, serving_of, session_of
from diffinst.serve.train_run import MODEL
from diffinst.serve.training import Training

router = APIRouter()


@router.get("/training")
def training(request: Request, model: str | None = None) -> Answer:
    """How many images there are to train a model on (null while one trains), and how it stands."""
    serving, session = serving_of(request), session_of(request)
    last = next(reversed(serving.engine.models.trainings.of(session)), None)
    running = last is not None and last.running
    return {
        "images": None if running else len(_images(serving, session, model)),
        "least": LEAST,
        "busy": serving.engine.models.trainings.running,
        "training": None if last is None else _told(last),
    }


@router.post("/training", status_code=202)
async def train(request: Request, asked: TrainAsked) -> Answer:
    """Train a model on the accepted images; some are held out, and both models scored on them."""
    serving, session = serving_of(request), session_of(request)
    models, most = serving.engine.models, _allowed(serving)
    if asked.iterations > most:
        raise Refused(422, f"iterations: {asked.iterations}; this server allows {most} at most")

    def start() -> Training:
        model, images = models.get(session, asked.model), _images(serving, session, asked.model)
        name = models.name(session, asked.model)
        return models.trainings.start(
            _known(session), name, model, images, asked.iterations, taken=models.given
        )

    return _told(await run_in_threadpool(start))


@router.post("/training/resume", status_code=202)
def resume(request: Request) -> Answer:
    """Go on with the last training, where it was stopped or the server ended, from a checkpoint."""
    serving = serving_of(request)
    _allowed(serving)
    return _told(serving.engine.models.trainings.resume(_known(session_of(request))))


@router.post("/training/stop")
def stop(request: Request) -> Answer:
    """Stop it; what it learned up to its last checkpoint is kept."""
    return _told(serving_of(request).engine.models.trainings.stop(_known(session_of(request))))


@router.delete("/models/{name}", status_code=204)
def remove_model(request: Request, name: str) -> Response:
    """Remove a model that this session trained; what was found with it stays."""
    serving_of(request).engine.models.remove(session_of(request), name)
    return Response(status_code=204)


def _allowed(serving: Serving) -> int:
    """Iterations of a training at most."""
    most = serving.engine.limits.iterations
    if not most:
        raise Refused(403, "this server trains nothing; who runs it can say --train")
    return most


def _known(session: str | None) -> str:
    if session is None:
        raise Refused(404, "there is no such session; add an image first: POST /images")
    return session


def _images(serving: Serving, session: str | None, model: str | None) -> list[Corrected]:
    """Those with objects of the model's classes."""
    models = serving.engine.models
    wanted = models.classes(session, models.name(session, model))
    trained = (one.asked.name for one in models.trainings.of(session))  # removed ones, too
    own = [*models.given, *trained]
    same = {name for name in own if models.classes(session, name) == wanted}
    return corrected(serving.sessions, session, same)


def _told(one: Training) -> Answer:
    """A training for a client; no path in it."""
    asked, standing = one.asked, one.standing
    return {
        "state": one.state,
        "phase": standing.phase,
        "name": asked.name,
        "origin": asked.origin,
        "iterations": asked.iterations,
        "iteration": standing.iteration,
        "loss": standing.loss,
        "seconds_left": standing.seconds_left,
        "scored": standing.scored,
        "to_score": standing.to_score,
        "trained_on": len(asked.trained_on),
        "held_out": len(asked.held_out),
        "old": standing.old,
        "new": standing.new,
        "better": standing.better and (one.folder / MODEL).is_dir(),
        "detail": standing.detail,
        "can_resume": one.can_resume,
    }
