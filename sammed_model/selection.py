"""Which rows of a corpus a run trains on, and which it scores, from the index alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sammed_data.corpus import VIEWS, Corpus, Row
from sammed_data.index import CorpusIndex, open_index, turns
from sammed_data.types import CorpusError


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Rows of the index to train on, and those of them or of the validation split to score."""

    index: CorpusIndex
    training_E: NDArray[np.int64]
    held_out_E: NDArray[np.int64]

    @classmethod
    def of(cls, corpus: Corpus, note: Callable[[str], None]) -> Selection:
        """The train and validation split under the view; patients are held out if there is none."""
        index, view = open_index(corpus), VIEWS["sam-med2d"]
        training = index.select(corpus, ["train"], view)
        held_out = index.select(corpus, ["validation"], view)
        if not len(training):
            raise CorpusError(_nothing_to_train_on(corpus))
        if not len(held_out):
            training, held_out = split_rows(index, training)
            note(
                "the corpus has no validation split, or none with a mask in view: some patients of "
                "the train split are held out"
                if len(held_out)
                else "one patient only: validation scores the training images and shows no "
                "generality"
            )
        return cls(index=index, training_E=training, held_out_E=held_out)


def _nothing_to_train_on(corpus: Corpus) -> str:
    rows = sum(s["rows"] for s in corpus.manifest["shards"] if "/train/" in f"/{s['path']}")
    if not rows:
        return (
            f"expected images in the train split of {corpus.root}, found none: "
            "build a corpus with datasets of role train"
        )
    return (
        f"all {rows} train images of {corpus.root} are outside the view sam-med2d "
        "(masks under 0.153 % of the image, or images over 2:1): nothing to train on"
    )


def split_rows(
    index: CorpusIndex, numbers_E: NDArray[np.int64], share: float = 0.1
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hold out some patients by hash: ``(rest, held out)``; of a single patient, nothing is."""
    patients_E = index.rows_N["patient"][numbers_E]
    patients = np.unique(patients_E)  # of hashes: any prefix of them is a random choice
    held = patients[: min(len(patients) - 1, max(1, round(share * len(patients))))]
    out = np.isin(patients_E, held)
    return numbers_E[~out], numbers_E[out]


def choose_rows(index: CorpusIndex, numbers_E: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """The same few rows each time: one of each patient first, in the order of hashed names."""
    rows = index.rows_N[numbers_E]
    turn = turns(rows["patient"], rows["sample"])
    return numbers_E[np.lexsort((rows["sample"], turn))[:limit]]


def rows_of(corpus: Corpus, index: CorpusIndex, numbers_E: NDArray[np.int64]) -> list[Row]:
    """Rows without pixels, in the order asked for; meant for hundreds of them, not millions."""
    places = [index.place(number) for number in numbers_E]
    found: dict[tuple[int, int], Row] = {}
    for shard in {shard for shard, _ in places}:  # each is read once
        own = [place for place in places if place[0] == shard]
        rows = corpus.rows_at(shard, [position for _, position in own])
        found |= dict(zip(own, rows, strict=True))
    return [found[place] for place in places]
