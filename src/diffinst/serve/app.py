"""The HTTP API and the page: every address, and what it gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from diffinst.inference.predictor import DiffusionInst
from diffinst.serve import front, training_routes
from diffinst.serve.answers import Answer, done, event, failure, told
from diffinst.serve.cache import Cache, Key
from diffinst.serve.engine import Done, Encoded, Engine, Step
from diffinst.serve.exports import Format, exported
from diffinst.serve.failures import say_failures
from diffinst.serve.guard import Guard
from diffinst.serve.limits import Limits
from diffinst.serve.metrics import Metrics
from diffinst.serve.models import Models
from diffinst.serve.queue import Job
from diffinst.serve.refusal import Refused
from diffinst.serve.requests import EditAsked, PredictAsked, PromptAsked
from diffinst.serve.serving import Serving, keep_session, serving_of, session_of
from diffinst.serve.sessions import About, Sessions, room
from diffinst.serve.tiles import tile, tiled
from diffinst.serve.training import Trainings
from diffinst.serve.uploads import decode
from diffinst.serve.work import Work

API_VERSION = "1"
HOUR = 3600.0  # seconds between two looks for unused sessions
router = APIRouter()


def create_app(
    models: Mapping[str, DiffusionInst],
    folder: Path,
    *,
    token: str | None = None,
    hosts: frozenset[str] | None = frozenset({"127.0.0.1", "localhost", "::1"}),
    limits: Limits | None = None,
) -> ASGIApp:
    """The app that `diffinst serve` runs.

    Args:
        models: By the names that clients use; no other is ever loaded.
        folder: Where sessions are kept.
        token: That clients have to bring; None: none.
        hosts: Names by which a browser may ask for the server; None: any.
        limits: What is allowed.
    """
    limits, metrics = limits or Limits(), Metrics()
    sessions = Sessions(folder, limits.images, limits.session_bytes)
    trainings = Trainings(sessions, next(iter(models.values())).device)
    cache = Cache(limits.cache_bytes)
    engine = Engine(Models(models, trainings, cache), sessions, limits, metrics, cache)

    async def remove_unused() -> None:
        while True:
            await run_in_threadpool(sessions.remove_unused, limits.session_days, trainings.in_use)
            await asyncio.sleep(HOUR)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        removing = asyncio.create_task(remove_unused())
        yield
        removing.cancel()
        await run_in_threadpool(trainings.close)
        await run_in_threadpool(engine.worker.close)

    app = FastAPI(
        title="diffinst",
        version=API_VERSION,
        description="Instance segmentation by denoising: images, steps as they come, prompts.",
        docs_url=None,  # they load scripts from elsewhere; /openapi.json has all of it
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.serving = Serving(engine, token)
    app.include_router(front.router)
    app.include_router(router)
    app.include_router(training_routes.router)
    say_failures(app)
    return Guard(app, limits, metrics, token, hosts)


@router.get("/images")
def images(request: Request, response: Response) -> Answer:
    """This session's images; the cookie is kept from now on."""
    sessions, session = serving_of(request).sessions, session_of(request)
    if session is not None:
        keep_session(response, session)
    return {
        "images": [
            {**asdict(about), "accepted": work.accepted} for about, work in sessions.works(session)
        ]
    }


@router.post("/images", status_code=201, openapi_extra={
    "requestBody": {"required": True, "content": {"image/*": {
        "schema": {"type": "string", "format": "binary"}}}}})  # fmt: skip
async def add_image(request: Request, name: str = Query("image", max_length=1000)) -> Response:
    """Add an image: the file is the body. The first one begins a session, kept in a cookie."""
    serving = serving_of(request)
    content = await request.body()
    session = session_of(request) or Sessions.new_id()
    most = serving.engine.limits.pixels

    def add() -> tuple[About, tuple[str, ...]]:
        pixels, notes = decode(content, name, most)
        return serving.sessions.add(session, pixels, name), notes

    about, notes = await run_in_threadpool(add)
    serving.engine.metrics.count("images")
    answer = JSONResponse({**asdict(about), "notes": notes}, status_code=201)
    keep_session(answer, session)
    return answer


@router.get("/images/{image}")
def image_work(request: Request, image: str) -> Answer:
    """An image and the objects on it."""
    serving, session = serving_of(request), session_of(request)
    about, work = serving.sessions.about(session, image), serving.sessions.work(session, image)
    classes = serving.engine.models.classes(session, work.model)
    return {**asdict(about), "tiles": tiled(about), **told(work, classes)}


@router.get("/images/{image}/pixels", response_class=FileResponse)
def image_pixels(request: Request, image: str) -> FileResponse:
    """Its pixels as PNG."""
    file = serving_of(request).sessions.file(session_of(request), image)
    return FileResponse(file, media_type="image/png")


@router.get("/images/{image}/tile", response_class=FileResponse)
def image_tile(
    request: Request,
    image: str,
    level: int = Query(ge=0, le=32),
    x: int = Query(ge=0),
    y: int = Query(ge=0),
) -> FileResponse:
    """A tile of a large image as JPEG; `tiles` of the image says how it is cut."""
    sessions, session = serving_of(request).sessions, session_of(request)
    about, file = sessions.about(session, image), sessions.file(session, image)
    return FileResponse(tile(file, about, level, x, y), media_type="image/jpeg")


@router.delete("/images/{image}", status_code=204)
def remove_image(request: Request, image: str) -> Response:
    """Remove it, and all work on it."""
    serving, session = serving_of(request), session_of(request)
    serving.sessions.remove(session, image)
    serving.engine.forget(session, image)
    return Response(status_code=204)


@router.post("/images/{image}/edit")
def edit(request: Request, image: str, asked: EditAsked) -> Answer:
    """Delete objects, change their class, keep them; undo and redo; accept the image."""
    serving, session = serving_of(request), session_of(request)

    def change(work: Work) -> Work:
        match asked.action:
            case "delete":
                return work.without(asked.objects)
            case "keep":
                return work.kept(asked.objects)
            case "undo":
                return work.undone()
            case "redo":
                return work.redone()
            case "accept":
                return work.approved(asked.threshold)
            case "label":
                count = len(serving.engine.models.classes(session, work.model) or ())
                if asked.label is None or asked.label >= count:
                    raise Refused(422, f"label: {asked.label}; give 0 to {count - 1}")
                return work.relabelled(asked.objects, asked.label)

    work = serving.sessions.change(session, image, change, asked.revision)
    return told(work, serving.engine.models.classes(session, work.model))


@router.get("/images/{image}/export")
async def export(
    request: Request,
    image: str,
    format: Format = "coco",
    threshold: float = Query(0.0, ge=0, le=1),
) -> Response:
    """The objects as COCO, label map, YOLO or GeoJSON; of found ones those above a score."""
    serving, session = serving_of(request), session_of(request)

    def make() -> tuple[bytes, str, str]:
        about, work = serving.sessions.about(session, image), serving.sessions.work(session, image)
        models = serving.engine.models
        names = models.classes(session, work.model or models.name(session, None))
        if names is None:
            raise Refused(
                410, f"model {work.model} is not served any more, nor are its classes known"
            )
        objects = work.shown(threshold)
        file = serving.sessions.file(session, image)
        with room():
            return exported(format, about, objects, names, file)

    content, name, media_type = await run_in_threadpool(make)
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}"}
    return Response(content, media_type=media_type, headers=headers)


@router.get("/stream", response_class=StreamingResponse, responses={
    200: {"content": {"text/event-stream": {}}, "description": "Events: encoded, step (each "
          "with all objects so far), done; or error"}})  # fmt: skip
async def stream(request: Request, asked: Annotated[PredictAsked, Query()]) -> Response:
    """Each denoising step as it comes, as server-sent events; leaving ends the work."""
    job = _predict(request, asked)

    async def events() -> AsyncIterator[str]:
        try:
            async for item in job.items(request.is_disconnected):
                yield event(item)
        except Refused as refused:
            if refused.status != 499:
                yield failure(refused.detail)
        except MemoryError as error:
            yield failure(str(error))
        except Exception:
            yield failure("the server failed; its terminal says why")
            raise

    return StreamingResponse(events(), media_type="text/event-stream")


@router.post("/predict")
async def predict(request: Request, asked: PredictAsked) -> Answer:
    """All objects; they are kept as the image's, around those that a person kept."""
    item = await _predict(request, asked).last(request.is_disconnected)
    assert isinstance(item, Done)
    return done(item)


@router.post("/prompt")
async def prompt(request: Request, asked: PromptAsked) -> Answer:
    """The object at each box and click; `answers` has its id, or null where nothing is."""
    serving, session = serving_of(request), session_of(request)
    pointed = asked.pointed(serving.engine.limits)
    name = serving.engine.models.name(session, asked.model)
    await run_in_threadpool(serving.sessions.about, session, asked.image)
    job = serving.engine.worker.submit(
        lambda left: serving.engine.prompt(session, asked.image, name, pointed, left),
        Key(session, asked.image, name),
    )
    item = await job.last(request.is_disconnected)
    assert isinstance(item, Done)
    return done(item)


def _predict(request: Request, asked: PredictAsked) -> Job[Encoded | Step | Done]:
    serving, session = serving_of(request), session_of(request)
    engine = serving.engine
    name = engine.models.name(session, asked.model)
    options = asked.options(engine.limits, engine.models.config(session, name).sampler)
    serving.sessions.about(session, asked.image)
    return engine.worker.submit(
        lambda left: engine.predict(session, asked.image, name, options, left),
        Key(session, asked.image, name),
    )
