"""Routes of the results view: the report and its gallery, pages of score rows, replays."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import threading
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse

from sammed_app.page.asked_models import AskedModels
from sammed_app.page.library import Library
from sammed_app.page.replay import Replayer, read_record
from sammed_app.page.scores_table import FACETS, Asked, ScoresTable
from sammed_app.page.settings import PageSettings
from sammed_data.types import CorpusError, UsageError

_Text = Annotated[str, Query(max_length=200)]
_SHORT = (
    *("number", "model", "kind", "mode", "dataset", "modality", "split", "structure", "sample_id"),
    *("mask_index", "area_px", "area_fraction", "dice", "iou", "status", "error", "n_clicks"),
)


class Results:
    """One results folder, opened when somebody first asks.

    Args:
        settings: which folder, and the models that the user gave.
        library: the corpus that was scored.
    """

    def __init__(self, settings: PageSettings, library: Library) -> None:
        self._settings, self._library = settings, library
        self._lock = threading.Lock()
        self._scores: ScoresTable | None = None
        self._replayer: Replayer | None = None
        self._cases: tuple[int, list[dict[str, Any]]] | None = None
        self.root = settings.results

    @property
    def scores(self) -> ScoresTable:
        """The score rows.

        Raises:
            UsageError: there are no results.
        """
        if self.root is None:
            raise UsageError("no results are open: start `sammed app --results results/NNN`")
        with self._lock:
            if self._scores is None:
                self._scores = ScoresTable(self.root)
            return self._scores

    @property
    def replayer(self) -> Replayer:
        """Replays of the rows."""
        scores, root = self.scores, self.root
        assert root is not None  # noqa: S101 - scores says so otherwise
        with self._lock:
            if self._replayer is None:
                given = self._settings.models
                models = AskedModels(root, read_record(root), given, self._library)
                self._replayer = Replayer(root, scores, self._library, models)
            return self._replayer

    def record(self) -> dict[str, Any]:
        """``bench.json``."""
        _ = self.scores
        assert self.root is not None  # noqa: S101 - as above
        return read_record(self.root)

    def gallery(self) -> list[dict[str, Any]]:
        """Worst, median and best cases with their pictures; empty where none were drawn."""
        _ = self.scores
        assert self.root is not None  # noqa: S101 - as above
        path = self.root / "gallery" / "gallery.json"
        if not path.is_file():
            return []
        changed = path.stat().st_mtime_ns
        if self._cases is None or self._cases[0] != changed:
            try:
                self._cases = (changed, json.loads(path.read_text(encoding="utf-8")))
            except ValueError as err:
                raise CorpusError(f"expected the gallery in {path}, found {err}") from err
        return self._cases[1]

    def report(self) -> Path:
        """Where the page lies that ``sammed bench`` left, if it did."""
        _ = self.scores
        assert self.root is not None  # noqa: S101 - as above
        return self.root / "report" / "report.html"


def router(settings: PageSettings, library: Library) -> APIRouter:
    """The routes over one results folder."""
    routes = APIRouter()
    results = Results(settings, library)

    @routes.get("/facets")
    def facets() -> dict[str, Any]:
        scores, record = results.scores, results.record()
        content = record["conditions"].get("corpus_sha256")
        return {name: scores.names[name] for name in FACETS} | {
            "root": str(results.root),
            "rows": len(scores),
            "report": results.report().is_file(),
            "notes": record.get("notes", []),
            "finished": record.get("finished", ""),
            "protocol": record["conditions"]["protocol"]["name"],
            "other_corpus": library.there and library.corpus.content_hash != content,
        }

    @routes.get("/rows")
    def rows(
        model: _Text = "",
        mode: _Text = "",
        dataset: _Text = "",
        structure: _Text = "",
        status: _Text = "",
        order: Annotated[str, Query(pattern="^(worst|best)$")] = "worst",
        page: Annotated[int, Query(ge=0, le=10**9)] = 0,
        per: Annotated[int, Query(ge=1, le=100)] = 25,
    ) -> dict[str, Any]:
        asked = Asked(
            model=model,
            mode=mode,
            dataset=dataset,
            structure=structure,
            status=status,
            order=order,
        )
        numbers = results.scores.numbers(asked)
        chosen = [int(n) for n in numbers[page * per : (page + 1) * per]]
        shown = [_short(row) for row in results.scores.rows(chosen)]
        return {"total": len(numbers), "page": page, "per": per, "rows": shown}

    @routes.get("/rows/{number}")
    def row(number: int) -> dict[str, Any]:
        own = results.scores.row(number)
        place = library.number(own["sample_id"]) if library.there else None
        others = [_short(other) for other in results.scores.same(number)]
        return _short(own) | {"corpus_row": place, "same": others}

    @routes.get("/rows/{number}/replay")
    def replay(number: int) -> dict[str, Any]:
        return results.replayer.replay(number)

    @routes.get("/find")
    def find(
        model: _Text,
        mode: _Text,
        sample_id: Annotated[str, Query(max_length=400)],
        mask_index: Annotated[int, Query(ge=0, le=10**6)],
    ) -> dict[str, Any]:
        return {"number": results.scores.find(model, sample_id, mask_index, mode)}

    @routes.get("/gallery")
    def gallery() -> dict[str, Any]:
        cases = [{k: v for k, v in case.items() if k != "png"} for case in results.gallery()]
        return {"cases": cases}

    @routes.get("/gallery/{number}.png")
    def case(number: int) -> Response:
        cases = results.gallery()
        if not 0 <= number < len(cases):
            raise UsageError(f"expected a case from 0 to {len(cases) - 1}")
        return Response(base64.b64decode(cases[number]["png"]), media_type="image/png")

    @routes.get("/report")
    def report() -> Response:
        return _report(results.report())

    return routes


def _report(path: Path) -> Response:
    """The report in a frame of its own: it may run its own script and reach nothing."""
    if not path.is_file():
        raise UsageError(f"no report at {path}: run `sammed report {path.parent.parent}`")
    page = path.read_bytes()
    hashes = [
        base64.b64encode(hashlib.sha256(script).digest()).decode()
        for script in re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)
    ]
    scripts = " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; "
        "frame-ancestors 'self'; base-uri 'none'; form-action 'none'; sandbox allow-scripts"
    )
    return HTMLResponse(
        page, headers={"content-security-policy": policy, "x-frame-options": "SAMEORIGIN"}
    )


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of a row; what is no number is null."""
    found = {name: row.get(name) for name in _SHORT}
    for name in ("dice", "iou"):
        value = found[name]
        found[name] = None if value is None or math.isnan(value) else value
    return found
