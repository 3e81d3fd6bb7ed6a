"""The HTTP API and the page: every address, and what it gives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from diffinst.inference.predictor import DiffusionInst
from diffinst.serve.answers import Answer, done, event, failure, told
from diffinst.serve.engine import Done, Encoded, Engine, Step
from diffinst.serve.exports import Format, exported
from diffinst.serve.failures import say_failures
from diffinst.serve.guard import TOKEN_COOKIE, Guard, same
from diffinst.serve.limits import Limits
from diffinst.serve.metrics import Metrics
from diffinst.serve.page_files import page_files, samples
from diffinst.serve.queue import Job
from diffinst.serve.refusal import Refused
from diffinst.serve.requests import EditAsked, PredictAsked, PromptAsked
from diffinst.serve.sessions import SESSION_ID, About, Sessions
from diffinst.serve.uploads import decode
from diffinst.serve.work import Work

API_VERSION = "1"
SESSION_COOKIE = "diffinst_session"
MONTH = 30 * 24 * 3600  # seconds that a browser keeps its session
router = APIRouter()


@dataclass(frozen=True)
class Serving:
    """What the addresses share."""

    engine: Engine
    token: str | None

    @property
    def sessions(self) -> Sessions:
        """On disk."""
        return self.engine.sessions


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
    engine = Engine(models, Sessions(folder, limits.images), limits, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
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
    app.include_router(router)
    say_failures(app)
    return Guard(app, limits, metrics, token, hosts)


@router.get("/", include_in_schema=False)
def page() -> Response:
    """The page."""
    return _file("index.html")


@router.get("/static/{name:path}", include_in_schema=False)
def static(name: str) -> Response:
    """Its style, script and samples."""
    return _file(name)


@router.post("/token", include_in_schema=False)
async def bring_token(request: Request) -> Response:
    """The page hands in the token and gets it as a cookie."""
    token = _serving(request).token
    given = (await request.body()).decode("utf-8", "replace").strip()
    if token is not None and not same(token, given):
        raise Refused(401, "this is not the token that the server printed at its start")
    answer = Response(status_code=204)
    if token is not None:
        answer.set_cookie(TOKEN_COOKIE, token, httponly=True, samesite="strict", max_age=MONTH)
    return answer


@router.get("/health")
def health(request: Request) -> Answer:
    """Whether it runs."""
    return {"status": "ok", "queue": _serving(request).engine.worker.there}


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request) -> str:
    """Counts, in Prometheus' text format."""
    engine = _serving(request).engine
    return engine.metrics.text(
        {
            "queue": engine.worker.there,
            "cache_bytes": engine.cache.bytes,
            "cache_images": len(engine.cache),
            "cache_hits": engine.cache.hits,
            "cache_misses": engine.cache.misses,
        }
    )


@router.get("/models")
def models(request: Request) -> Answer:
    """The models served, with their classes and what they do by default; samples and limits."""
    engine = _serving(request).engine
    listed = []
    for name, model in engine.models.items():
        sampler, after = model.config.sampler, model.config.postprocess
        listed.append(
            {
                "name": name,
                "classes": list(model.class_names),
                "steps": sampler.steps,
                "proposals": sampler.proposals,
                "threshold": after.threshold,
            }
        )
    limits = engine.limits
    return {
        "models": listed,
        "samples": samples(),
        "limits": {
            "steps": limits.steps,
            "proposals": limits.proposals,
            "seconds": limits.seconds,
            "upload_bytes": limits.upload_bytes,
            "pixels": limits.pixels,
        },
    }


@router.get("/images")
def images(request: Request) -> Answer:
    """This session's images."""
    sessions, session = _serving(request).sessions, _session(request)
    return {
        "images": [
            {**asdict(about), "accepted": sessions.work(session, about.id).accepted}
            for about in sessions.images(session)
        ]
    }


@router.post("/images", status_code=201, openapi_extra={
    "requestBody": {"required": True, "content": {"image/*": {
        "schema": {"type": "string", "format": "binary"}}}}})  # fmt: skip
async def add_image(request: Request, name: str = Query("image", max_length=1000)) -> Response:
    """Add an image: the file is the body. The first one begins a session, kept in a cookie."""
    serving = _serving(request)
    content = await request.body()
    session = _session(request) or Sessions.new_id()
    most = serving.engine.limits.pixels

    def add() -> tuple[About, tuple[str, ...]]:
        pixels, notes = decode(content, name, most)
        return serving.sessions.add(session, pixels, name), notes

    about, notes = await run_in_threadpool(add)
    serving.engine.metrics.count("images")
    answer = JSONResponse({**asdict(about), "notes": notes}, status_code=201)
    answer.set_cookie(SESSION_COOKIE, session, httponly=True, samesite="strict", max_age=MONTH)
    return answer


@router.get("/images/{image}")
def image_work(request: Request, image: str) -> Answer:
    """An image and the objects on it."""
    sessions, session = _serving(request).sessions, _session(request)
    return {**asdict(sessions.about(session, image)), **told(sessions.work(session, image))}


@router.get("/images/{image}/pixels", response_class=FileResponse)
def image_pixels(request: Request, image: str) -> FileResponse:
    """Its pixels as PNG."""
    file = _serving(request).sessions.file(_session(request), image)
    return FileResponse(file, media_type="image/png")


@router.delete("/images/{image}", status_code=204)
def remove_image(request: Request, image: str) -> Response:
    """Remove it, and all work on it."""
    serving, session = _serving(request), _session(request)
    serving.sessions.remove(session, image)
    serving.engine.forget(session, image)
    return Response(status_code=204)


@router.post("/images/{image}/edit")
def edit(request: Request, image: str, asked: EditAsked) -> Answer:
    """Delete objects, change their class, keep them; undo and redo; accept the image."""
    serving = _serving(request)

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
                return replace(work, accepted=True, revision=work.revision + 1)
            case "label":
                model = serving.engine.models.get(work.model)
                count = 0 if model is None else len(model.class_names)
                if asked.label is None or asked.label >= count:
                    raise Refused(422, f"label: {asked.label}; give 0 to {count - 1}")
                return work.relabelled(asked.objects, asked.label)

    return told(serving.sessions.change(_session(request), image, change, asked.revision))


@router.get("/images/{image}/export")
async def export(
    request: Request,
    image: str,
    format: Format = "coco",
    threshold: float = Query(0.0, ge=0, le=1),
) -> Response:
    """The objects as COCO, label map, YOLO or GeoJSON; of found ones those above a score."""
    serving, session = _serving(request), _session(request)

    def make() -> tuple[bytes, str, str]:
        about, work = serving.sessions.about(session, image), serving.sessions.work(session, image)
        names = serving.engine.model(work.model if work.model else None)[1].class_names
        objects = [one for one in work.current if one.kept or one.score >= threshold]
        png = serving.sessions.file(session, image).read_bytes() if format == "yolo" else b""
        return exported(format, about, objects, names, png)

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
    serving, session = _serving(request), _session(request)
    pointed = asked.pointed(serving.engine.limits)
    serving.engine.model(asked.model)
    await run_in_threadpool(serving.sessions.about, session, asked.image)
    job = serving.engine.worker.submit(
        lambda: serving.engine.prompt(session, asked.image, asked.model, pointed)
    )
    item = await job.last(request.is_disconnected)
    assert isinstance(item, Done)
    return done(item)


def _predict(request: Request, asked: PredictAsked) -> Job[Encoded | Step | Done]:
    serving, session = _serving(request), _session(request)
    engine = serving.engine
    options = asked.options(engine.limits)
    engine.model(asked.model)
    serving.sessions.about(session, asked.image)
    return engine.worker.submit(lambda: engine.predict(session, asked.image, asked.model, options))


def _file(name: str) -> Response:
    file = page_files().get(name)
    if file is None:
        raise Refused(404, "there is no such file")
    return Response(file.content, media_type=file.media_type)


def _serving(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return serving


def _session(request: Request) -> str | None:
    """The session that the client has, if its id is of the form that was given out."""
    given = request.cookies.get(SESSION_COOKIE, "")
    return given if SESSION_ID.fullmatch(given) else None
