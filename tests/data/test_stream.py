"""The training reader: the same pixels as `Corpus.read`, each row once, from any position."""

from __future__ import annotations

import itertools
import json
import stat
from pathlib import Path

import numpy as np
import pytest

from sammed_data.build import build
from sammed_data.corpus import VIEWS, Corpus, View
from sammed_data.index import name_hash, open_index
from sammed_data.phantom import write_phantoms
from sammed_data.stream import Stream
from sammed_data.types import CorpusError, UsageError

SMALL = 60_000  # bytes: some dozen windows an epoch


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("stream")
    write_phantoms(folder, n_patients=12, seed=3, only=("phantom_ct", "phantom_derm"))
    build(folder / "catalogs", folder / "data", folder / "corpus")
    return Corpus(folder / "corpus")


def stream_of(
    corpus: Corpus,
    *,
    splits: tuple[str, ...] = ("train",),
    view: View = VIEWS["all"],
    window_bytes: int = SMALL,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Stream:
    numbers_E = open_index(corpus).select(corpus, splits, view)
    return Stream(corpus, numbers_E, window_bytes=window_bytes, seed=seed, rank=rank, world=world)


def numbers(stream: Stream, epoch: int = 0) -> list[int]:
    return [int(n) for window in stream.order(epoch) for n in window]


def test_the_index_says_what_the_rows_say(corpus: Corpus) -> None:
    index = open_index(corpus)
    rows = corpus.index()
    assert len(index.rows_N) == len(rows)
    for view in (VIEWS["all"], VIEWS["sam-med2d"], View(min_area_fraction=0.02, annotator=2)):
        expected = [
            sum(view.keeps_mask(m, r.height, r.width) for m in r.masks)
            * view.keeps_image(r.height, r.width)
            for r in rows
        ]
        assert index.kept_masks(view).tolist() == expected
    for found, row in zip(index.rows_N, rows, strict=True):
        assert found["sample"] == name_hash(row.sample_id)
        assert index.names["modality"][found["modality"]] == row.modality
        assert (found["height"], found["width"]) == (row.height, row.width)
        first, count = int(found["first_mask"]), int(found["n_masks"])
        codes = index.masks_M["structure"][first : first + count]
        assert [index.names["structure"][c] for c in codes] == [m.structure for m in row.masks]


def test_rows_hold_the_pixels_that_the_corpus_holds(corpus: Corpus) -> None:
    stream = stream_of(corpus)
    rows = {row.sample_id: row for row in corpus.index(["train"])}
    for found in itertools.islice(stream.rows(), len(stream)):
        full = corpus.read(rows.pop(found.sample_id))
        assert full.image is not None
        np.testing.assert_array_equal(found.image(), full.image)
        for mask in full.masks:
            assert mask.mask_HW is not None
            np.testing.assert_array_equal(found.mask_HW(mask.index), mask.mask_HW)
        assert (found.ignore_HW() is None) == (full.ignore_HW is None)
    assert not rows


def test_an_epoch_has_each_row_once_and_epochs_differ(corpus: Corpus) -> None:
    stream = stream_of(corpus)
    first, second = numbers(stream, 0), numbers(stream, 1)
    assert sorted(first) == sorted(second) == stream.numbers_E.tolist()
    assert first != second != sorted(second)
    assert numbers(stream_of(corpus, seed=1)) != first


def test_neighbours_of_a_volume_are_spread_out(corpus: Corpus) -> None:
    stream = stream_of(corpus, window_bytes=1 << 27)
    patients = stream.index.rows_N["patient"][numbers(stream)]
    together = float(np.mean(patients[1:] == patients[:-1]))
    stored = stream.index.rows_N["patient"][stream.numbers_E]
    assert together < 0.25 < float(np.mean(stored[1:] == stored[:-1]))


@pytest.mark.parametrize("world", [2, 3, 5])
def test_ranks_share_one_order_without_overlap(corpus: Corpus, world: int) -> None:
    whole = numbers(stream_of(corpus))
    shares = [numbers(stream_of(corpus, rank=rank, world=world)) for rank in range(world)]
    assert {len(share) for share in shares} == {len(whole) // world}
    assert list(itertools.chain(*shares)) == whole[: len(whole) // world * world]


@pytest.mark.parametrize("offset", [0, 1, 37])
def test_a_stream_goes_on_from_any_row(corpus: Corpus, offset: int) -> None:
    stream = stream_of(corpus)
    length = len(stream)
    whole = [(r.number, r.epoch, r.offset) for r in itertools.islice(stream.rows(), 2 * length)]
    resumed = [
        (r.number, r.epoch, r.offset) for r in itertools.islice(stream.rows(0, offset), length)
    ]
    assert resumed == whole[offset : offset + length]


def test_a_view_leaves_rows_out(corpus: Corpus) -> None:
    view = View(min_area_fraction=0.05)
    stream = stream_of(corpus, view=view)
    assert 0 < len(stream) < len(stream_of(corpus))
    assert (stream.index.kept_masks(view)[numbers(stream)] > 0).all()
    for row in corpus.index(["train"]):
        number = int(np.flatnonzero(stream.index.rows_N["sample"] == name_hash(row.sample_id))[0])
        kept = [m.index for m in row.masks if view.keeps_mask(m, row.height, row.width)]
        assert stream.index.mask_keys(number, view) == kept


def test_an_index_of_another_build_is_made_anew(corpus: Corpus) -> None:
    place = corpus.root / "index" / "index.json"
    said = json.loads(place.read_text())
    rows = (corpus.root / "index" / "rows.npy").read_bytes()
    place.write_text(json.dumps(said | {"content_sha256": "other"}))
    open_index(corpus)
    assert json.loads(place.read_text()) == said
    assert (corpus.root / "index" / "rows.npy").read_bytes() == rows


def test_a_corpus_that_cannot_be_written_to_is_read_all_the_same(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = corpus.root / "index"
    (folder / "index.json").unlink()
    folder.chmod(stat.S_IREAD | stat.S_IEXEC)
    real = Path.unlink

    def refuse(self: Path, missing_ok: bool = False) -> None:
        if self.parent == folder:  # root may write anywhere
            raise PermissionError(str(self))
        real(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    try:
        assert len(open_index(corpus).rows_N) == len(corpus.index())
    finally:
        folder.chmod(stat.S_IRWXU)
        monkeypatch.undo()
        open_index(corpus)


def test_wrong_requests_are_sentences(corpus: Corpus) -> None:
    with pytest.raises(UsageError, match="rank from 0 to 1"):
        stream_of(corpus, rank=2, world=2)
    with pytest.raises(CorpusError, match="at least 100000 images of .* found"):
        stream_of(corpus, rank=0, world=100_000)
    with pytest.raises(CorpusError, match="at least 1 images of .* found 0"):
        stream_of(corpus, splits=("held_out",))


def test_excluded_rows_are_not_streamed(corpus: Corpus) -> None:
    row = corpus.index(["train"])[4]
    place = corpus.root / "exclude.csv"
    place.write_text(
        f"level,dataset,id,reason,withdrawn\npatient,{row.dataset},{row.meta['patient_id']},blurred,\n"
    )
    try:
        left = Corpus(corpus.root)
        streamed = {r.sample_id for r in itertools.islice(stream_of(left).rows(), 10_000)}
        assert streamed == {r.sample_id for r in left.index(["train"])}
        assert row.sample_id not in streamed
    finally:
        place.unlink()
    assert len(stream_of(Corpus(corpus.root))) == len(corpus.index(["train"]))
