"""The web application: routes joined behind the gate, and the static files of the page."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from sammed_app.page.corpus_api import router as corpus_routes
from sammed_app.page.library import Library
from sammed_app.page.results_api import router as results_routes
from sammed_app.page.security import CHANGE_HEADER, UPLOAD_PATH, App, Gate
from sammed_app.page.settings import PageSettings
from sammed_app.page.try_api import router as try_routes
from sammed_data.types import SammedError, UsageError

# Of a malformed request, this much is said.
_PROBLEMS, _LETTERS = 3, 300

STATIC = Path(__file__).with_name("static")
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
Handler = Callable[[Request, Exception], Awaitable[Response]]


def create_app(settings: PageSettings) -> App:
    """The page as an ASGI application.

    Raises:
        SammedError: the corpus or the results cannot be opened.
    """
    app = FastAPI(title="sammed", openapi_url=None, docs_url=None, redoc_url=None)
    app.add_exception_handler(SammedError, _said)
    app.add_exception_handler(RequestValidationError, _malformed)
    library = Library(settings.corpus, settings.exclude)
    _add_about(app, settings)
    app.include_router(corpus_routes(library), prefix="/api/corpus")
    app.include_router(results_routes(settings, library), prefix="/api/results")
    app.include_router(try_routes(settings, library), prefix="/api/try")
    _add_files(app)
    return Gate(app, settings)


def server_of(settings: PageSettings) -> uvicorn.Server:
    """The page ready to run.

    Raises:
        SammedError: nothing to serve.
    """
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,  # the address holds the token once
        server_header=False,
        limit_concurrency=64,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=3,
    )
    return uvicorn.Server(config)


def serve(settings: PageSettings) -> None:
    """Serve the page until the user stops it.

    Raises:
        SammedError: nothing to serve, or the address is taken.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    free(settings)
    server_of(settings).run()


def free(settings: PageSettings) -> None:
    """See that the address can be had.

    Raises:
        UsageError: it is taken, or none of this machine.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as found:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((settings.host, settings.port))
    except OSError as err:
        raise UsageError(
            f"cannot listen at {settings.host}:{settings.port} ({err.strerror}): another page may "
            "run there; give another --port"
        ) from err


async def _said(request: Request, err: Exception) -> Response:
    """A sentence for the user; 400 where the request was wrong, 500 where what lies here is."""
    return JSONResponse({"error": str(err)}, 400 if isinstance(err, UsageError) else 500)


async def _malformed(request: Request, err: Exception) -> Response:
    """Which part of a request is wrong, without echoing it: not all that is sent can be JSON."""
    problems = err.errors() if isinstance(err, RequestValidationError) else []
    said = "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
        for problem in problems[:_PROBLEMS]
    )
    return JSONResponse({"error": f"the request is not understood: {said}"[:_LETTERS]}, 422)


def _add_about(app: FastAPI, settings: PageSettings) -> None:
    about: dict[str, Any] = {
        "corpus": settings.corpus is not None,
        "results": settings.results is not None,
        "models": [wanted.label for wanted in settings.models],
        "change_header": CHANGE_HEADER,
        "upload_path": UPLOAD_PATH,
        "upload_bytes": settings.upload_bytes,
    }

    @app.get("/api/about")
    def said() -> dict[str, Any]:
        return about


def _add_files(app: FastAPI) -> None:
    """Each file of the page as a route of its own: no path of a client is ever joined."""
    for path in sorted(STATIC.iterdir()):
        if path.suffix in _KINDS:
            place = "/" if path.name == "index.html" else f"/static/{path.name}"
            app.add_api_route(place, _file(path), methods=["GET"], include_in_schema=False)


def _file(path: Path) -> Callable[[], Response]:
    def answer() -> Response:
        return Response(path.read_bytes(), media_type=_KINDS[path.suffix])

    return answer
