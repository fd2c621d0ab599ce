from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from sammed_data.build import build
from sammed_data.corpus import ROWS_PER_GROUP, Corpus
from sammed_data.describe import counts_lines
from sammed_data.manifest import totals
from sammed_data.plan import BuildOptions
from sammed_data.shards import read_rejections
from sammed_data.types import CatalogError, CorpusError, GeometryError, ReadError, UsageError
from tests.data import build_fakes as fakes


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    base = tmp_path_factory.mktemp("source")
    fakes.write_source(base / "data")
    return fakes.write_catalog(base / "catalogs"), base / "data"


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "corpus"
    return out, build(*source, out)


def test_counts_add_up_and_match_what_is_stored(built):
    out, result = built
    counts = result.manifest["counts"]
    rows = Corpus(out).index()
    rejected = read_rejections(out).to_pylist()
    kept = sum(len(r.masks) for r in rows)
    small = sum(r["count"] for r in rejected if r["level"] == "mask")
    blank = sum(r["count"] for r in rejected if r["level"] == "image")
    assert counts["masks"] == {
        "candidates": kept + small, "kept": kept, "rejected": {"small-part": small},
    }  # fmt: skip
    # A case has 5 slices with blocks; its crumb is alone on slice 0; slice 6 is blank.
    assert (counts["images"]["found"], len(rows), blank) == (12 * 7, 12 * 5, 12 * 2)
    assert small == 12


def test_a_count_that_does_not_add_up_is_our_bug():
    record = {"rejected": {}, "cases": 1, "slices": 2, "candidates": 3, "rows": 2, "masks": 2}
    with pytest.raises(RuntimeError, match="add up"):
        totals([record])


def test_pixels_and_masks_are_those_of_the_source(built, source):
    out, _ = built
    corpus = Corpus(out)
    row = next(
        r for r in corpus.index() if r.meta["case_id"] == "p003" and r.meta["slice_index"] == 2
    )
    found = corpus.read(row)
    image, label = fakes.volume_pair(3)
    low, high = found.meta["intensity"]["low"], found.meta["intensity"]["high"]
    plane = image[::-1, ::-1, 2].T  # NIfTI is RAS: rows to posterior, columns to left
    expected = np.rint(np.clip((plane - low) / (high - low), 0, 1) * 255)
    assert np.abs(found.image.astype(int) - expected).max() <= 1
    for mask, value in zip(found.masks, (1, 2), strict=True):
        truth = value == label[::-1, ::-1, 2].T
        assert np.array_equal(mask.mask_HW, truth)
        ys, xs = np.nonzero(truth)
        assert mask.box_xyxy == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert mask.area_px == truth.sum()
    assert [m.structure for m in found.masks] == ["liver", "spleen"]
    meta = found.meta
    assert (meta["spacing_y_mm"], meta["spacing_x_mm"]) == pytest.approx((1.25, 0.8))
    assert (meta["axis"], meta["volume_shape"], meta["cluster"]) == (
        "axial",
        [7, 11, 13],
        "patient",
    )
    assert meta["spacing_slice_mm"] == pytest.approx(3.0)
    assert meta["annotated_structures"] == ["liver", "spleen"]
    assert [s["path"] for s in meta["sources"]] == ["images/p003.nii.gz", "labels/p003.nii.gz"]
    assert "p003" not in meta["patient_id"]


def test_axes_override_cuts_the_other_way(source, tmp_path):
    build(*source, tmp_path / "c", options=BuildOptions(axes=("coronal", "sagittal")))
    shapes = {(r.meta["axis"], r.height, r.width) for r in Corpus(tmp_path / "c").index()}
    assert shapes == {("coronal", 7, 13), ("sagittal", 7, 11)}


def test_depth_16_stores_values_that_restore(source, tmp_path):
    from sammed_data.intensity import Depth16

    build(*source, tmp_path / "c", options=BuildOptions(depth=16))
    corpus = Corpus(tmp_path / "c")
    row = corpus.read(corpus.index()[0])
    kept = row.meta["intensity"]
    depth = Depth16(slope=kept["u16_slope"], intercept=kept["u16_intercept"])
    number = int(row.meta["case_id"][1:])
    plane = fakes.volume_pair(number)[0][::-1, ::-1, row.meta["slice_index"]].T
    assert np.abs(depth.restore(row.image_u16) - plane).max() <= kept["u16_slope"]


def test_without_components_structures_stay_whole_and_uncounted(tmp_path):
    image, label = fakes.volume_pair(0)
    label[8:10, 8:10, 2] = 1  # a second piece of liver, and a crumb of two pixels
    label[12, 0:2, 2] = 1
    fakes.write_case(tmp_path / "data" / "fake_mr", "p000", image, label)
    where = (fakes.write_catalog(tmp_path / "catalogs"), tmp_path / "data")

    def livers(out, **chosen):
        build(*where, out, options=BuildOptions(**chosen))
        rows = map((corpus := Corpus(out)).read, corpus.index())
        (row,) = (row for row in rows if row.meta["slice_index"] == 2)
        return [mask for mask in row.masks if mask.structure == "liver"]

    pieces, (whole,) = livers(tmp_path / "a"), livers(tmp_path / "b", components=False)
    drawn = int((label[:, :, 2] == 1).sum())
    assert [mask.n_components for mask in pieces] == [1, 1]
    assert sum(mask.area_px for mask in pieces) == drawn - 2
    assert (whole.n_components, whole.area_px, int(whole.mask_HW.sum())) == (None, drawn, drawn)
    assert whole.touches_border


def test_any_number_of_workers_gives_the_same_bytes(built, source, tmp_path):
    out, _ = built
    build(*source, tmp_path / "c", workers=2)
    assert fakes.tree(tmp_path / "c") == fakes.tree(out)


def test_a_second_build_builds_nothing(built, source):
    out, _ = built
    before = fakes.tree(out)
    again = build(*source, out)
    assert (again.built, fakes.tree(out)) == (0, before)


def test_a_corpus_moves_and_its_identity_does_not_depend_on_places(built, source, tmp_path):
    out, result = built
    shutil.copytree(source[1], tmp_path / "elsewhere")
    moved = build(source[0], tmp_path / "elsewhere", tmp_path / "c")
    assert moved.manifest == result.manifest
    assert str(source[1]) not in (out / "manifest.json").read_text()


def test_other_options_replace_the_corpus_and_leave_no_old_file(source, tmp_path):
    out = tmp_path / "c"
    first = build(*source, out)
    second = build(*source, out, options=BuildOptions(min_part_px=1))
    assert first.manifest["content_sha256"] != second.manifest["content_sha256"]
    build(*source, tmp_path / "fresh", options=BuildOptions(min_part_px=1))
    assert fakes.tree(out) == fakes.tree(tmp_path / "fresh")


def test_dropping_a_dataset_removes_its_shards(tmp_path):
    data = tmp_path / "data"
    fakes.write_source(data)
    fakes.write_source(data, n=2, name="other_mr")
    catalogs = fakes.write_catalog(
        tmp_path / "cat", fakes.entry_dict(), fakes.entry_dict("other_mr", role="held_out")
    )
    out = tmp_path / "c"
    build(catalogs, data, out)
    assert {r.split for r in Corpus(out).index() if r.dataset == "other_mr"} == {"held_out"}
    again = build(catalogs, data, out, drop=["other_mr"])
    assert again.dropped == ("other_mr",)
    assert not list(out.rglob("*other_mr*"))


def test_shard_files_keep_to_the_row_group_limit_and_are_listed(built):
    out, result = built
    for shard in result.manifest["shards"]:
        file = pq.ParquetFile(out / shard["path"])
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        assert max(groups) <= ROWS_PER_GROUP
        assert file.metadata.num_rows == shard["rows"]
        assert shard["path"] in (out / "README.md").read_text()


def _copy(source, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(source[1], data)
    return source[0], data, data / "fake_mr"


def _truncate(root):
    path = root / "images/p002.nii.gz"
    path.write_bytes(path.read_bytes()[:700])


def _other_grid(root):
    fakes.write_case(root, "p002", *fakes.volume_pair(2), np.diag([0.8, 1.25, 2.0, 1.0]))


def _mirrored(root):
    turned = fakes.affine() @ np.diag([-1.0, 1, 1, 1])  # about the first voxel: it lies elsewhere
    fakes.write_case(root, "p002", *fakes.volume_pair(2), turned)


def _unknown_value(root):
    image, label = fakes.volume_pair(2)
    label[0, 0, 0] = 9
    fakes.write_case(root, "p002", image, label)


def _not_finite(root):
    image, label = fakes.volume_pair(2)
    image[3, 3, 3] = np.nan
    fakes.write_case(root, "p002", image, label)


def _constant(root):
    fakes.write_case(root, "p002", np.full(fakes.SHAPE, 7, np.int16), fakes.volume_pair(2)[1])


def _mask_as_image(root):
    label = fakes.volume_pair(2)[1]
    fakes.write_case(root, "p002", (label > 0).astype(np.int16) * 255, label)


def _no_label(root):
    (root / "labels/p002.nii.gz").unlink()


def _no_image(root):
    (root / "images/p002.nii.gz").unlink()


BAD = {
    _truncate: ("unreadable", "images/p002.nii.gz"),
    _other_grid: ("grid", "of 2 x 1.25 x 0.8 mm"),
    _mirrored: ("grid", "LPS"),
    _unknown_value: ("unreadable", "9"),
    _not_finite: ("not-finite", "1 NaN"),
    _constant: ("constant-image", "7"),
    _mask_as_image: ("image-is-label", "mask"),
    _no_label: ("unpaired", "p002"),
    _no_image: ("unpaired", "p002"),
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda f: f.__name__)
def test_a_bad_case_is_quarantined_with_a_sentence_and_the_others_go_on(source, tmp_path, spoil):
    rule, word = BAD[spoil]
    catalogs, data, root = _copy(source, tmp_path)
    spoil(root)
    result = build(catalogs, data, tmp_path / "c")
    (row,) = [r for r in read_rejections(tmp_path / "c").to_pylist() if r["level"] == "case"]
    assert row["rule"] == rule
    assert word in row["reason"]
    assert str(tmp_path) not in row["reason"]
    assert result.quarantined == 1
    assert len({r.meta["case_id"] for r in Corpus(tmp_path / "c").index()}) == 11
    counts = result.manifest["counts"]["cases"]
    assert counts == {"found": 12, "rejected": {rule: 1}}


@pytest.mark.parametrize("spoil", BAD, ids=lambda f: f.__name__)
def test_strict_stops_and_leaves_the_older_corpus(source, tmp_path, spoil):
    catalogs, data, root = _copy(source, tmp_path)
    out = tmp_path / "c"
    build(catalogs, data, out)
    before = {k: v for k, v in fakes.tree(out).items() if not k.startswith(".partial")}
    spoil(root)
    with pytest.raises((ReadError, GeometryError)):
        build(catalogs, data, out, strict=True)
    after = {k: v for k, v in fakes.tree(out).items() if not k.startswith(".partial")}
    assert after == before
    Corpus(out).read(Corpus(out).index()[0])


def test_nothing_kept_is_an_error_that_says_why(tmp_path):
    root = tmp_path / "data/fake_mr"
    image, label = fakes.volume_pair(0)
    fakes.write_case(root, "p000", image, label)
    (root / "images/p000.nii.gz").write_bytes(b"")
    with pytest.raises(CorpusError, match=r"images/p000\.nii\.gz"):
        build(fakes.write_catalog(tmp_path / "cat"), tmp_path / "data", tmp_path / "c")
    assert not (tmp_path / "c/manifest.json").exists()


def test_a_dataset_without_any_pair_does_not_stop_the_others(source, tmp_path):
    catalogs, data, _ = _copy(source, tmp_path)
    fakes.write_case(data / "half_mr", "p001", fakes.volume_pair(1)[0], None)
    two = fakes.write_catalog(tmp_path / "cat", fakes.entry_dict(), fakes.entry_dict("half_mr"))
    result = build(two, data, tmp_path / "c")
    assert "p001" in result.failed["half_mr"]
    assert result.quarantined == 1
    with pytest.raises(ReadError, match="p001"):
        build(two, data, tmp_path / "c", only=["half_mr"])


def test_absent_sources_are_listed_and_are_errors_only_when_named(source, tmp_path):
    catalogs = fakes.write_catalog(
        tmp_path / "cat", fakes.entry_dict(), fakes.entry_dict("far_mr", access="registration")
    )
    result = build(catalogs, source[1], tmp_path / "c")
    assert [e.id for e in result.absent] == ["far_mr"]
    with pytest.raises(CatalogError, match=r"far_mr is not on disk.*example\.org.*registration"):
        build(catalogs, source[1], tmp_path / "c", only=["far_mr"])
    with pytest.raises(UsageError, match="did you mean 'fake_mr'"):
        build(catalogs, source[1], tmp_path / "c", only=["fake_mri"])
    with pytest.raises(CatalogError, match="none of the 2"):
        build(catalogs, tmp_path / "nothing", tmp_path / "c")


def test_wrong_options_are_reported_together(source, tmp_path):
    options = BuildOptions(depth=12, axes=("axal",), min_part_px=0, intensity="papr")
    with pytest.raises(UsageError, match=r"depth.*min-part-px.*axial.*paper"):
        build(*source, tmp_path / "c", options=options)


def test_all_unknown_structures_of_an_entry_are_named_together(source, tmp_path):
    entry = fakes.entry_dict(labels={"1": "livr", "2": "splen"})
    with pytest.raises(CatalogError, match=r"fake_mr.*liver.*spleen"):
        build(fakes.write_catalog(tmp_path / "cat", entry), source[1], tmp_path / "c")


def test_restricted_data_store_no_readable_name(source, tmp_path):
    catalogs = fakes.write_catalog(tmp_path / "cat", fakes.entry_dict(privacy="restricted"))
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    build(catalogs, source[1], tmp_path / "c", key_file=key)
    for path in (tmp_path / "c").rglob("*.parquet"):
        text = json.dumps(pq.read_table(path).drop_columns(
            [c for c in ("image", "masks") if c in pq.read_schema(path).names]
        ).to_pylist(), default=str)  # fmt: skip
        assert "p003" not in text
        assert "images/" not in text


def test_a_replaced_shard_is_noticed_by_the_reader(source, tmp_path):
    out = tmp_path / "c"
    build(*source, out)
    build(*source, tmp_path / "other", options=BuildOptions(min_part_px=1))
    shard = Corpus(out).manifest["shards"][0]["path"]
    shutil.copy(tmp_path / "other" / shard, out / shard)
    with pytest.raises(CorpusError, match="another build"):
        Corpus(out).index()


def test_channels_of_a_4d_file_share_patient_and_label(tmp_path):
    root = tmp_path / "data/fake_mr"
    image, label = fakes.volume_pair(4)
    fakes.write_case(root, "p000", np.stack([image, image[::-1]], axis=-1), label)
    layout = fakes.entry_dict()["layout"] | {
        "images": [{"pattern": "images/{case}.nii.gz", "channel": ["T1", "T2"]}]
    }
    catalogs = fakes.write_catalog(tmp_path / "cat", fakes.entry_dict(layout=layout))
    build(catalogs, tmp_path / "data", tmp_path / "c")
    rows = Corpus(tmp_path / "c").index()
    assert {r.meta["sequence"] for r in rows} == {"T1", "T2"}
    assert len({r.meta["patient_id"] for r in rows}) == 1
    assert len(rows) == 10


def test_overlapping_sources_across_splits_are_named(source, tmp_path):
    fakes.write_source(tmp_path / "data", n=2)
    fakes.write_source(tmp_path / "data", n=2, name="other_mr")
    catalogs = fakes.write_catalog(
        tmp_path / "cat",
        fakes.entry_dict(),
        fakes.entry_dict("other_mr", role="held_out", overlaps=["fake_mr", "absent_mr"]),
    )
    manifest = build(catalogs, tmp_path / "data", tmp_path / "c").manifest
    assert any("fake_mr (train) ~ other_mr" in line for line in counts_lines(manifest))
