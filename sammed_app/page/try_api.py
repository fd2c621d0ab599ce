"""Routes of the view *Try*: tabs, files, slices, prompts, following, export."""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from sammed_app.page.drawing import MOST_POINTS
from sammed_app.page.images import SampleImage, sweep
from sammed_app.page.library import Library
from sammed_app.page.session import Look
from sammed_app.page.sessions import Sessions
from sammed_app.page.settings import PageSettings
from sammed_app.page.weights import Weights
from sammed_app.page.worker import Worker
from sammed_app.predict.types import Asked
from sammed_data.codecs import encode_image
from sammed_data.types import GeometryError, ReadError, UsageError

_Name = Annotated[str, Query(max_length=64)]
_Label = Annotated[str, Field(max_length=80, pattern=r"^[^\x00-\x1f]*$")]
_Coordinate = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
_Point = tuple[_Coordinate, _Coordinate, Literal[0, 1]]
_T = TypeVar("_T")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LookIn(_Strict):
    """A slice as the page shows it."""

    model: str = Field("", max_length=200)
    axis: str = Field(max_length=20)
    index: int = Field(ge=0)
    policy: str = Field("", max_length=60)
    modality: str = Field("", max_length=20)

    @property
    def look(self) -> Look:
        """The same for the rooms below."""
        return Look(**self.model_dump())


class OpenIn(_Strict):
    """What is opened: a row of the corpus, or the files dropped so far."""

    row: int | None = Field(None, ge=0)
    sample: str | None = Field(None, max_length=400)
    channel: int | None = Field(None, ge=0, le=10**6)


class AskIn(_Strict):
    """Prompts of one object on one slice, all of them; none = its mask goes.

    Attributes:
        choice: which of three alternatives is kept; -1 = show them.
    """

    look: LookIn
    object: int = Field(ge=0, le=10**6)
    name: _Label
    points: list[_Point] = Field(default_factory=list, max_length=MOST_POINTS)
    box: tuple[_Coordinate, _Coordinate, _Coordinate, _Coordinate] | None = None
    choice: int | None = Field(None, ge=-1, le=2)

    @property
    def asked(self) -> Asked:
        """The prompts in pixels of the slice as shown."""
        box = self.box
        if box is not None and (box[2] <= box[0] or box[3] <= box[1]):
            raise UsageError(f"expected a box with an area, found {list(box)}")
        return Asked(
            object=self.name.strip() or f"object {self.object}",
            axis=self.look.axis,
            index=self.look.index,
            box_xyxy=box,
            points=tuple(self.points),
        )


class FollowIn(_Strict):
    """The object to follow, and the slices not to be left."""

    look: LookIn
    object: int
    first: int | None = Field(None, ge=0)
    last: int | None = Field(None, ge=0)


class NameIn(_Strict):
    """The label of an object."""

    name: _Label


def router(settings: PageSettings, library: Library) -> APIRouter:
    """The routes, with the worker behind them; it ends with the server."""
    sweep()
    weights, worker = Weights(settings.models), Worker()
    sessions = Sessions(weights, worker)
    # Decoding has a thread of its own: one team of OpenMP threads, not one for each of a pool.
    decoder = ThreadPoolExecutor(1, thread_name_prefix="sammed-decoder")

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        decoder.shutdown(wait=False, cancel_futures=True)
        await run_in_threadpool(sessions.close_all)

    routes = APIRouter(lifespan=life)
    _tabs(routes, sessions, weights)
    _files(routes, sessions, library)
    _slices(routes, sessions)
    _prompts(routes, sessions, decoder)
    _following(routes, sessions)
    _export(routes, sessions)
    return routes


def _tabs(routes: APIRouter, sessions: Sessions, weights: Weights) -> None:
    @routes.post("/session")
    def create() -> dict[str, Any]:
        models = [{"label": n, "policy": weights.policy(n)} for n in weights.labels]
        return {"session": sessions.create().name, "models": models}

    @routes.delete("/session/{name}")
    def close(name: str) -> dict[str, Any]:
        sessions.close(name)
        return {}

    @routes.get("/session/{name}/state")
    async def state(name: str) -> dict[str, Any]:
        return sessions.get(name).state()


def _files(routes: APIRouter, sessions: Sessions, library: Library) -> None:
    @routes.post("/upload")
    async def upload(
        request: Request, session: _Name, name: Annotated[str, Query(max_length=400)]
    ) -> dict[str, Any]:
        inbox = sessions.get(session).incoming
        path = inbox.place(name)
        whole = False
        try:
            with path.open("wb") as target:
                async for chunk in request.stream():
                    inbox.take(len(chunk))
                    target.write(chunk)
            whole = True
        finally:
            if not whole:
                path.unlink(missing_ok=True)
        return {"name": name}

    @routes.post("/session/{name}/drop")
    def forget(name: str) -> dict[str, Any]:
        """Before other files are dropped."""
        sessions.get(name).expect_files()
        return {}

    @routes.post("/session/{name}/open", response_model=None)
    def open_(name: str, asked: OpenIn) -> dict[str, Any] | Response:
        session = sessions.get(name)
        if asked.row is None and asked.sample is None:
            try:
                return session.show_dropped(asked.channel)
            except (ReadError, GeometryError) as err:  # the file's fault, not the server's
                return JSONResponse({"error": str(err)}, 422)
        number = asked.row if asked.sample is None else library.number(asked.sample)
        if number is None:
            raise UsageError(f"no sample {asked.sample!r} in this corpus: open it from the corpus")
        return session.show(SampleImage(library.row(number)))


def _slices(routes: APIRouter, sessions: Sessions) -> None:
    @routes.get("/session/{name}/slice.png")
    def picture(name: str, asked: Annotated[LookIn, Query()]) -> Response:
        data = encode_image(sessions.get(name).picture(asked.look))
        return Response(data, media_type="image/png")

    @routes.post("/session/{name}/want")
    def want(name: str, asked: LookIn) -> dict[str, Any]:
        session = sessions.get(name)
        session.want(asked.look)
        return session.state()

    @routes.get("/session/{name}/drawn")
    def drawn(name: str, index: Annotated[int, Query(ge=0)]) -> dict[str, Any]:
        drawing = sessions.get(name).drawing
        return {
            "objects": {n: one.about() for n, one in drawing.on(index).items()},
            "slices": drawing.slices(),
        }


def _prompts(routes: APIRouter, sessions: Sessions, decoder: ThreadPoolExecutor) -> None:
    async def decoded(work: Callable[[], _T]) -> _T:
        return await asyncio.wrap_future(decoder.submit(work))

    @routes.post("/session/{name}/ask")
    async def ask(name: str, said: AskIn) -> dict[str, Any]:
        session, asked, look = sessions.get(name), said.asked, said.look.look
        found = await decoded(lambda: session.ask(look, said.object, asked, said.choice))
        if found is None:
            await run_in_threadpool(session.want, look)
            return {"drawn": None, "choices": [], "again": True}
        return found | {"again": False}

    @routes.post("/session/{name}/objects/{number}")
    def rename(name: str, number: int, said: NameIn) -> dict[str, Any]:
        sessions.get(name).drawing.rename(number, said.name.strip() or f"object {number}")
        return {}

    @routes.delete("/session/{name}/objects/{number}")
    def remove(name: str, number: int) -> dict[str, Any]:
        sessions.get(name).drawing.remove([number])
        return {}

    @routes.delete("/session/{name}/objects")
    def clear(name: str) -> dict[str, Any]:
        sessions.get(name).drawing.remove()
        return {}


def _following(routes: APIRouter, sessions: Sessions) -> None:
    @routes.post("/session/{name}/follow")
    def follow(name: str, said: FollowIn) -> dict[str, Any]:
        session = sessions.get(name)
        session.start_follow(said.look.look, said.object, said.first, said.last)
        return session.state()

    @routes.delete("/session/{name}/follow")
    def stop(name: str) -> dict[str, Any]:
        session = sessions.get(name)
        session.stop()
        return session.state()

    @routes.delete("/session/{name}/objects/{number}/followed")
    def unfollow(name: str, number: int) -> dict[str, Any]:
        sessions.get(name).drawing.unfollow(number)
        return {}


def _export(routes: APIRouter, sessions: Sessions) -> None:
    @routes.get("/session/{name}/export")
    def export(
        name: str,
        form: Literal["png", "nifti", "prompts"],
        per_object: bool = False,  # noqa: FBT001 - a query
    ) -> Response:
        session = sessions.get(name)
        if form == "prompts":
            text = json.dumps(session.prompts(), indent=1) + "\n"
            return _attached("prompts.json", text.encode(), "application/json")
        with tempfile.TemporaryDirectory(prefix="sammed-export-") as folder:
            files = session.export(Path(folder), form, per_object=per_object)
            if len(files) == 1:
                return _attached(files[0].name, files[0].read_bytes(), "application/octet-stream")
            return _attached("masks.zip", _zipped(files), "application/zip")


def _zipped(files: list[Path]) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:  # stored: PNG and gz do not shrink again
        for file in files:
            archive.write(file, file.name)
    return whole.getvalue()


def _attached(name: str, data: bytes, kind: str) -> Response:
    plain = name.encode("ascii", "replace").decode().replace('"', "'").replace("?", "_")
    headers = {"content-disposition": f'attachment; filename="{plain}"'}
    return Response(data, media_type=kind, headers=headers)
