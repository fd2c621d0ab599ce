"""Clips: frames as pictures and frames of video files, grouped by clip."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from sammed_data.build import build
from sammed_data.catalog import CatalogEntry, load_catalogs
from sammed_data.discover import discover
from sammed_data.encodings import pair_on_grid, read_labels
from sammed_data.readers import video
from sammed_data.readers.registry import read_image
from sammed_data.types import ReadError
from tests import fake_files

HEIGHT, WIDTH, N_FRAMES = 24, 40, 12
ENTRY = {
    "id": "clips", "name": "Clips", "modality": "endoscopy", "dims": "2D",
    "layout": {"images": [{"pattern": "video/{clip}.avi", "first_frame": 1}],
               "labels": [{"pattern": "masks/{clip}/frame{frame}.png"}]},
    "label_encoding": {"type": "binary"}, "labels": {"1": "polyp"},
    "patient": {"regex": r"video/(.+)\.avi", "unit": "clip"},
    "license": "CC0-1.0", "homepage": "https://example.org",
}  # fmt: skip


def _entry(**changes) -> CatalogEntry:
    return CatalogEntry.model_validate({**ENTRY, **changes})


def _write_video(path: Path, n_frames: int = N_FRAMES) -> None:
    """Frame k is grey 20 k, with a white square at (k, k)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    out = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (WIDTH, HEIGHT), isColor=True
    )
    for k in range(n_frames):
        picture = np.full((HEIGHT, WIDTH, 3), 20 * k, np.uint8)
        picture[k : k + 8, k : k + 8] = (255, 255, 255)
        out.write(picture)
    out.release()


def _write(root: Path, clips: dict[str, list[int]]) -> Path:
    for clip, frames in clips.items():
        _write_video(root / "video" / f"{clip}.avi")
        for number in frames:
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            k = number - 1
            mask[k : k + 8, k : k + 8] = 255
            fake_files.write_picture(root / "masks" / clip / f"frame{number}.png", mask)
    return root


def test_each_frame_with_a_mask_is_a_case_of_its_clip(tmp_path):
    entry = _entry()
    root = _write(tmp_path, {"c1": [2, 10, 5], "c2": [1]})
    found = discover(entry, root)
    assert found.problems == ()
    assert [(c.case_id, c.channel, c.patient_key) for c in found.cases] == [
        ("c1-000001", 1, "c1"), ("c1-000004", 4, "c1"), ("c1-000009", 9, "c1"),
        ("c2-000000", 0, "c2"),
    ]  # fmt: skip
    for case in [*found.cases, *found.cases[::-1]]:  # forwards and backwards
        image = read_image(case)
        labels = read_labels(case, entry, image)
        assert pair_on_grid(image, labels, entry) is image
        mask = labels.layers[0].array_ZYX[0] > 0
        assert image.array.shape == (1, HEIGHT, WIDTH, 3)
        assert image.array[0][mask].min() > 200
        assert abs(int(image.array[0][20, 38, 0]) - 20 * case.channel) < 8


def test_a_clip_is_the_unit_of_splits_and_rows(tmp_path):
    import pyarrow.parquet as pq

    (tmp_path / "catalogs").mkdir()
    (tmp_path / "catalogs" / "clips.yaml").write_text(yaml.safe_dump(ENTRY))
    source = load_catalogs(None)  # the ontology that travels with the package
    assert source
    ontology = Path(__file__).parents[2] / "catalogs" / "_ontology.yaml"
    (tmp_path / "catalogs" / "_ontology.yaml").write_text(ontology.read_text())
    _write(tmp_path / "data" / "clips", {f"c{n}": [1, 2] for n in range(12)})
    result = build(tmp_path / "catalogs", tmp_path / "data", tmp_path / "out")
    assert result.quarantined == 0
    split_of: dict[str, set[str]] = {}
    for shard in (tmp_path / "out" / "data").rglob("*.parquet"):
        for row in pq.read_table(shard, columns=["patient_id", "cluster", "split"]).to_pylist():
            assert row["cluster"] == "clip"
            split_of.setdefault(row["patient_id"], set()).add(row["split"])
    assert len(split_of) == 12
    assert all(len(s) == 1 for s in split_of.values())


def test_frames_as_pictures_are_grouped_by_clip(tmp_path):
    entry = _entry(
        layout={"images": [{"pattern": "{clip}/frames/{n}.jpg"}],
                "labels": [{"pattern": "{clip}/masks/{n}.png"}]},
        patient={"regex": "^([^/]+)/frames/", "unit": "clip"},
    )  # fmt: skip
    for clip in ("a", "b"):
        for n in range(3):
            grey = np.full((HEIGHT, WIDTH), 10 * n, np.uint8)
            fake_files.write_picture(tmp_path / clip / "frames" / f"{n}.jpg", grey)
            fake_files.write_picture(tmp_path / clip / "masks" / f"{n}.png", grey)
    cases = discover(entry, tmp_path).cases
    assert [(c.case_id, c.patient_key) for c in cases] == [
        (f"{clip}_{n}", clip) for clip in "ab" for n in range(3)
    ]


def test_a_frame_before_the_first_or_without_number_is_named(tmp_path):
    root = _write(tmp_path, {"c1": [1]})
    (root / "masks" / "c1" / "frame1.png").rename(root / "masks" / "c1" / "frame0.png")
    problem = discover(_entry(), root).problems[0]
    assert "expected the number of a frame, from 1" in problem.reason
    assert "found '0'" in problem.reason


def test_a_frame_beyond_the_end_is_a_sentence(tmp_path):
    _write_video(tmp_path / "a.avi")
    with pytest.raises(ReadError, match="expected a frame 40, found 12 whole frames"):
        video.read(tmp_path / "a.avi", 40)
    assert video.read(tmp_path / "a.avi", 3).array[0, 20, 38, 0] == pytest.approx(60, abs=8)


def test_limits_and_damage(tmp_path, monkeypatch):
    path = tmp_path / "a.avi"
    path.write_bytes(b"RIFF" + b"\0" * 500)
    with pytest.raises(ReadError, match="found a file that cannot be decoded"):
        video.read(path, 0)
    path.write_bytes(b"")
    with pytest.raises(ReadError, match="empty file"):
        video.read(path, 0)
    _write_video(path)
    with pytest.raises(ReadError, match="expected a frame from 0 to 999,999"):
        video.read(path, 10**6)
    monkeypatch.setattr(video, "MAX_FRAMES", 5)
    video._clip.cache_clear()
    with pytest.raises(ReadError, match="expected at most 5 frames, the header declares 12"):
        video.read(path, 2)
