"""The addresses that belong to no image: the page, the token, what is served and how it fares."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from diffinst.serve.answers import Answer
from diffinst.serve.guard import TOKEN_COOKIE, same
from diffinst.serve.page_files import page_files, samples
from diffinst.serve.refusal import Refused
from diffinst.serve.serving import MONTH, serving_of, session_of

router = APIRouter()


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
    token = serving_of(request).token
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
    return {"status": "ok", "queue": serving_of(request).engine.worker.there}


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request) -> str:
    """Counts, in Prometheus' text format."""
    engine = serving_of(request).engine
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
    """The models that this session may use, with their classes and defaults; samples, limits."""
    engine, session = serving_of(request).engine, session_of(request)
    listed = []
    for name, config in engine.models.configs(session).items():
        sampler, after = config.sampler, config.postprocess
        listed.append(
            {
                "name": name,
                "classes": list(config.model.names),
                "steps": sampler.steps,
                "proposals": sampler.proposals,
                "threshold": after.threshold,
                "trained": name not in engine.models.given,
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
            "iterations": limits.iterations,
        },
    }


def _file(name: str) -> Response:
    file = page_files().get(name)
    if file is None:
        raise Refused(404, "there is no such file")
    return Response(file.content, media_type=file.media_type)
