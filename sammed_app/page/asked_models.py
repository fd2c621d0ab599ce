"""Models of a benchmark found again: by what the user gave, else by where its record says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sammed_app.page.library import Library
from sammed_bench.baselines import FALLBACK_RADIUS, training_radius, trivial_baselines
from sammed_bench.choose import Wanted, load
from sammed_bench.models import MODELS
from sammed_bench.types import Model
from sammed_data.types import ModelError
from sammed_model.device import choose_device
from sammed_model.types import KINDS

_LOADED = 3
_RADIUS = re.compile(r"radius (0\.\d+) of the short side")


class AskedModels:
    """Loads models by the score row that they made; the last few stay.

    Args:
        results: folder of ``sammed bench``; relative paths in its record may start beside it.
        record: ``bench.json``.
        given: by the user.
        library: the corpus, for the radius of a trivial baseline.
    """

    def __init__(
        self, results: Path, record: Mapping[str, Any], given: Sequence[Wanted], library: Library
    ) -> None:
        self._results, self._library = results, library
        self._given = {wanted.label: wanted for wanted in given}
        self._listed = {entry["name"]: entry for entry in record.get("models", [])}
        self._loaded: dict[tuple[str, str], Model] = {}
        self.device = str(choose_device("auto"))

    def load(self, score: Mapping[str, Any], edition: str) -> Model:
        """The model with the weights that made a row.

        Raises:
            ModelError: it is not there, or has other weights now.
        """
        key = (score["model"], score["weights_sha256"])
        found = self._loaded.pop(key, None) or self._find(score, edition)
        self._loaded[key] = found
        if len(self._loaded) > _LOADED:
            self._loaded.pop(next(iter(self._loaded)))
        return found

    def _find(self, score: Mapping[str, Any], edition: str) -> Model:
        label, tried = score["model"], []
        for wanted in self._candidates(label, score):
            model = self._make(wanted, score, edition)
            if model.facts.weights_sha256 == score["weights_sha256"]:
                return model
            tried.append(str(wanted.path or wanted.label))
        if tried:
            raise ModelError(f"{', '.join(tried)} is not what was scored as {label!r}.")
        raise ModelError(
            f"the weights of {label!r} are not where the benchmark found them: start `sammed app "
            f"--model {label}=PATH`, or run `sammed bench --keep-predictions`."
        )

    def _candidates(self, label: str, score: Mapping[str, Any]) -> Iterator[Wanted]:
        if score["kind"] == "trivial" or label in MODELS:
            yield Wanted(label=label)
            return
        given = self._given.get(label)
        if given is not None:
            yield given
        source = str(self._listed.get(label, {}).get("source") or "")
        kind = score["kind"] if score["kind"] in KINDS else None
        beside = self._results.absolute().parent.parent
        places = (Path(source), beside / source, beside.parent / source)
        for path in dict.fromkeys(places) if source and kind else ():
            if path.is_file():
                yield Wanted(label=label, path=path, kind=kind)

    def _make(self, wanted: Wanted, score: Mapping[str, Any], edition: str) -> Model:
        if score["kind"] != "trivial":
            return load(replace(wanted, label=score["model"]), self.device, edition=edition)
        rules = trivial_baselines(self._radius())
        return next(rule for rule in rules if rule.facts.name == wanted.label)

    def _radius(self) -> float:
        """Of the disc: as the record says it, else read from all training masks."""
        for entry in self._listed.values():
            said = _RADIUS.match(str(entry.get("source") or ""))
            if said is not None:
                return float(said[1])
        with self._library.lock:
            found = training_radius(self._library.corpus.index(["train"]))
        return FALLBACK_RADIUS if found is None else found
