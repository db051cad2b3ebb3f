"""The HTTP routes (docs/service.md), a thin layer over `service.Service`."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import ClientDisconnect

from showtell import __version__
from showtell.captioners.base import ForeignCaptioner
from showtell.serve import schemas
from showtell.serve.errors import RECORD_STATUS, add_handlers, error_body
from showtell.serve.models import BundleCaptioner, served
from showtell.serve.schemas import CaptionQuery
from showtell.serve.security import AccessControl, Guard, bearer
from showtell.serve.service import Service
from showtell.serve.settings import ServiceSettings
from showtell.serve.stream import MEDIA_TYPE, JsonLines, record_lines, until_disconnected
from showtell.serve.upload import FIELD, Upload, UploadLimits, uploads
from showtell.types import Record

PAGE = Path(__file__).parent / "page"

Options = Annotated[CaptionQuery, Query()]

_BINARY = {"type": "string", "format": "binary"}
_PHOTOS = {
    "type": "object",
    "properties": {FIELD: {"type": "array", "items": _BINARY, "minItems": 1}},
    "required": [FIELD],
    "additionalProperties": False,
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _PHOTOS},
            "image/*": {"schema": {**_BINARY, "minLength": 1}},
            "application/octet-stream": {"schema": {**_BINARY, "minLength": 1}},
        },
    }
}
_RETRY = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ErrorBody, "description": description}
    for status, description in {
        400: "No photo, an empty one, or a malformed body.",
        403: "From the page of a site that is not allowed.",
        408: "The upload was too slow.",
        413: "Too many bytes, pixels or photos.",
        415: "Neither a photo nor a form with photos.",
        421: "A host name that is not allowed.",
        422: "A broken photo, or an option that is not allowed.",
        500: "An internal error.",
        502: "The captioner has no caption, or its server cannot be used.",
        503: "The service is overloaded; try again.",
    }.items()
}
_ERRORS[503]["headers"] = _RETRY
_UNAUTHORIZED: dict[int | str, dict[str, Any]] = {401: {"model": schemas.ErrorBody, "description": "The token is wrong."}}


def create_app(captioner: BundleCaptioner | ForeignCaptioner, settings: ServiceSettings) -> FastAPI:
    """The ASGI application that captions with `captioner`, of any kind."""
    service = Service(served(captioner), settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="showtell",
        summary="Captions for photos",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # their pages fetch scripts from other hosts
        redoc_url=None,
        redirect_slashes=False,  # behind a proxy that ends TLS, redirects would lead to http://
    )
    app.state.service = service
    add_handlers(app)
    app.include_router(_health(service))
    guarded = {"dependencies": bearer(settings.token), "responses": _UNAUTHORIZED} if settings.token else {}
    app.include_router(_captions(service), **guarded)
    app.mount("/static", StaticFiles(directory=PAGE), name="static")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(AccessControl, settings=settings)
    app.add_middleware(Guard, metrics=service.metrics)
    _list_styles(app, service.model.styles)  # last, since it builds the schema of all routes
    return app


def _list_styles(app: FastAPI, styles: Sequence[str]) -> None:
    """Puts the model's caption styles into the OpenAPI schema; an empty style is the model's default."""
    for methods in app.openapi()["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "style":
                    parameter["schema"] = {"type": "string", "enum": ["", *styles]}


def _health(service: Service) -> APIRouter:
    router = APIRouter(prefix="/health", tags=["health"])

    @router.get("/live", response_model=schemas.Health, operation_id="live")
    async def live() -> Any:
        """Whether the process answers."""
        return {"status": "ok"}

    @router.get(
        "/ready",
        response_model=schemas.Health,
        responses={503: {"model": schemas.Health, "description": "It is shutting down."}},
        operation_id="ready",
    )
    async def ready() -> Any:
        """Whether the model is loaded and requests are taken."""
        if not service.ready:
            return JSONResponse({"status": "not taking requests"}, 503)
        return {"status": "ok"}

    return router


def _captions(service: Service) -> APIRouter:
    router = APIRouter()
    settings, model = service.settings, service.model

    def incoming(request: Request, max_bytes: int, max_photos: int) -> AsyncGenerator[Upload]:
        service.check_room()  # before any of the body is read
        limits = UploadLimits(max_bytes, settings.large.max_bytes, max_photos, settings.upload_timeout)
        return uploads(request.stream(), request.headers, limits, service.budget)

    @router.post(
        "/v1/captions",
        response_model=schemas.CaptionsAnswer,
        responses=_ERRORS,
        openapi_extra=_BODY,
        operation_id="captions",
        tags=["captions"],
    )
    async def captions(request: Request, query: Options) -> Response:
        """Caption one or several photos.

        200 where at least one photo could be read; the others then have an error in their records.
        """
        wanted = query.wanted(model)
        tasks: list[asyncio.Task[Record]] = []
        try:
            async with contextlib.aclosing(incoming(request, settings.max_body_bytes, settings.max_photos)) as photos:
                async for upload in photos:
                    tasks.append(await service.submit(upload, wanted, wait=False))
            records = await _unless_disconnected(request, tasks)
        finally:
            for task in tasks:
                task.cancel()
        return _answer(records, model.name)

    @router.post(
        "/v1/captions/stream",
        response_class=Response,  # with JsonLines, OpenAPI would describe errors as lines
        responses={
            200: {
                "description": "One record per line, in the order sent; an error object as last line where the body broke off.",
                "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
            },
            **_ERRORS,
        },
        openapi_extra=_BODY,
        operation_id="stream",
        tags=["captions"],
    )
    async def stream(request: Request, query: Options) -> Response:
        """Caption many photos; each line of the answer is a record, sent as soon as it is ready."""
        photos = incoming(request, settings.max_stream_bytes, settings.max_stream_photos)
        return JsonLines(record_lines(request, service, photos, query.wanted(model)))

    card = _card(service)

    @router.get(
        "/v1/model",
        response_model=schemas.ModelCard,
        response_model_exclude_none=True,
        operation_id="model",
        tags=["model"],
    )
    async def about() -> Any:
        """The model, its scores, and the limits of a request."""
        return card

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        operation_id="metrics",
        tags=["health"],
    )
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(service.metrics.page(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return router


async def _unless_disconnected(request: Request, tasks: list[asyncio.Task[Record]]) -> list[Record]:
    """The results of the tasks. Raises ClientDisconnect where the client disconnects first, or the error of a task."""
    gone = asyncio.create_task(until_disconnected(request))
    # Not `gather`: cancelled together with its tasks, it leaves an exception that asyncio logs.
    done = asyncio.create_task(asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION))
    try:
        await asyncio.wait((done, gone), return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise ClientDisconnect
        for task in done.result()[0]:
            task.result()  # raises the error of a failed task, while others may still run
        return [task.result() for task in tasks]
    finally:
        gone.cancel()
        done.cancel()


def _answer(records: list[Record], model: str) -> Response:
    results = [record.to_json() for record in records]
    headers = {"Cache-Control": "no-store"}
    first = records[0]
    if first.error_code is None or any(record.error_code is None for record in records):
        return JSONResponse({"results": results, "model": model}, headers=headers)
    body = error_body(first.error_code, str(first.error_message))
    if len(records) > 1:
        body["results"] = results
    return JSONResponse(body, RECORD_STATUS[first.error_code], headers)


def _card(service: Service) -> dict[str, Any]:
    settings = service.settings
    return {
        **service.model.card(),
        "limits": {
            "max_photos": settings.max_photos,
            "max_stream_photos": settings.max_stream_photos,
            "max_photo_bytes": settings.large.max_bytes,
            "max_body_bytes": settings.max_body_bytes,
            "max_stream_bytes": settings.max_stream_bytes,
            "max_pixels": settings.large.max_pixels,
        },
        "version": __version__,
    }
