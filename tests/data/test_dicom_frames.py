"""Ultrasound, X-ray and enhanced DICOM: colours, regions, frames, several volumes in a file."""

from __future__ import annotations

import numpy as np
import pytest

from sammed_data.readers import dicom
from sammed_data.readers.registry import read_label_map, read_volume
from sammed_data.types import GeometryError, ReadError
from tests.data import dicom_files as made
from tests.data.anatomy import answer_geometry, answer_image, series

AXIAL = {"order": (0, 1, 2), "flips": (False, False, False)}
RNG = np.random.default_rng(4)
# Smooth, so that halving the colour resolution changes little.
GREY = (np.indices((3, 20, 30)).sum(0) * 4).astype(np.uint8)
RGB = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)


def _ybr(rgb: np.ndarray) -> np.ndarray:
    """Full-range BT.601, written down here anew."""
    r, g, b = np.moveaxis(rgb.astype(float), -1, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    planes = (y, (b - y) / 1.772 + 128, (r - y) / 1.402 + 128)
    return np.clip(np.rint(np.stack(planes, axis=-1)), 0, 255).astype(np.uint8)


def test_colours_of_a_cine(tmp_path):
    volume = read_volume(made.write(tmp_path / "rgb.dcm", made.image(RGB, "RGB")))
    np.testing.assert_array_equal(volume.array, RGB)
    assert (volume.geometry, volume.modality, volume.bits) == (None, "US", 8)
    volume = read_volume(made.write(tmp_path / "ybr.dcm", made.image(_ybr(RGB), "YBR_FULL")))
    assert np.abs(volume.array.astype(int) - RGB).max() <= 3
    full = _ybr(RGB)
    pairs = full.reshape(3, 20, 15, 2, 3).astype(int)
    packed = np.empty((3, 20, 15, 4), np.uint8)
    packed[..., :2] = pairs[..., 0]
    packed[..., 2:] = pairs[..., 1:].mean(axis=3)
    ds = made.image(full, "YBR_FULL_422")
    ds.PixelData = packed.tobytes()
    volume = read_volume(made.write(tmp_path / "422.dcm", ds))
    assert np.abs(volume.array.astype(int) - RGB).max() <= 8


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_becomes_its_colours(tmp_path, bits):
    ds = made.image(GREY, "PALETTE COLOR")
    tables = [np.arange(256), 255 - np.arange(256), np.arange(256) // 2]
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        if bits == 16:
            table = table * 257
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [256, 0, bits])
        data = table.astype("u1" if bits == 8 else "<u2").tobytes()
        setattr(ds, f"{name}PaletteColorLookupTableData", data)
    volume = read_volume(made.write(tmp_path / "p.dcm", ds))
    np.testing.assert_array_equal(volume.array, RGB)


def test_one_frame_of_a_cine(tmp_path):
    path = made.write(tmp_path / "c.dcm", made.image(RGB, "RGB"))
    np.testing.assert_array_equal(read_volume(path, channel=2).array, RGB[2:])
    with pytest.raises(ReadError, match="a frame for channel 3, found 3 frames"):
        read_volume(path, channel=3)
    masks = made.image((GREY > 90).astype(np.uint8), modality="OT")
    mask, _ = read_label_map(made.write(tmp_path / "m.dcm", masks), channel=1)
    np.testing.assert_array_equal(mask, GREY[1:2] > 90)


def test_ultrasound_is_cut_to_its_tissue(tmp_path):
    ds = made.image(RGB, "RGB")
    spectral = made.region(0, 0, 29, 3, kind=3, form=3)
    ds.SequenceOfUltrasoundRegions = [spectral, made.region(4, 5, 23, 16)]
    volume = read_volume(made.write(tmp_path / "u.dcm", ds))
    np.testing.assert_array_equal(volume.array, RGB[:, 5:17, 4:24])
    assert volume.spacing_yx_mm == pytest.approx((0.5, 0.2))
    assert (volume.crop.top, volume.crop.left, volume.crop.whole_yx) == (5, 4, (20, 30))
    assert volume.text == ""


def test_between_two_regions_it_is_black(tmp_path):
    ds = made.image(np.full((1, 20, 30), 200))
    ds.SequenceOfUltrasoundRegions = [
        made.region(2, 3, 11, 15),
        made.region(16, 5, 25, 18, delta=(0.03, 0.03)),
    ]
    volume = read_volume(made.write(tmp_path / "u.dcm", ds))
    assert volume.array.shape == (1, 16, 24)
    assert volume.array.sum() == 200 * (10 * 13 + 10 * 14)
    assert volume.spacing_yx_mm is None  # the two do not agree


def test_regions_that_say_nothing_of_length_or_lie_outside(tmp_path):
    ds = made.image(GREY)
    ds.SequenceOfUltrasoundRegions = [made.region(2, 3, 11, 15, units=4)]
    assert read_volume(made.write(tmp_path / "a.dcm", ds)).spacing_yx_mm is None
    ds.SequenceOfUltrasoundRegions = [made.region(2, 3, 31, 15)]
    with pytest.raises(ReadError, match=r"regions inside 30 x 20 pixels, found one of \(2, 3\)"):
        read_volume(made.write(tmp_path / "b.dcm", ds))
    del ds.SequenceOfUltrasoundRegions
    volume = read_volume(made.write(tmp_path / "c.dcm", ds))
    assert (volume.array.shape, volume.text, volume.crop) == ((3, 20, 30), "no-region", None)


def test_pixel_size_at_the_detector_is_said(tmp_path):
    ds = made.image(GREY[:1], modality="MG")
    ds.ImagerPixelSpacing = ["0.07", "0.09"]
    volume = read_volume(made.write(tmp_path / "m.dcm", ds))
    assert volume.spacing_yx_mm == (0.07, 0.09)
    assert "ImagerPixelSpacing" in volume.warnings[0]
    ds.PixelSpacing = ["0.06", "0.08"]
    volume = read_volume(made.write(tmp_path / "m.dcm", ds))
    assert (volume.spacing_yx_mm, volume.warnings) == ((0.06, 0.08), ())
    del ds.PixelSpacing, ds.ImagerPixelSpacing
    ds.NominalScannedPixelSpacing, ds.Modality = ["0.2", "0.3"], "OT"
    volume = read_volume(made.write(tmp_path / "s.dcm", ds))
    assert volume.spacing_yx_mm == (0.2, 0.3)
    assert "NominalScannedPixelSpacing" in volume.warnings[0]


def test_packed_bits_and_declared_sizes_are_refused_before_decoding(tmp_path):
    ds = made.image(GREY, modality="CR")
    ds.BitsAllocated = 12
    with pytest.raises(ReadError, match="found 12 bits packed"):
        read_volume(made.write(tmp_path / "a.dcm", ds))
    ds.BitsAllocated, ds.NumberOfFrames, ds.Rows, ds.Columns = 8, 2_000_000_000, 60000, 60000
    with pytest.raises(ReadError, match="decoded bytes, the header declares"):
        read_volume(made.write(tmp_path / "b.dcm", ds))


# Compressed


@pytest.mark.parametrize(
    ("syntax", "codec"),
    [
        ("1.2.840.10008.1.2.4.57", "ljpeg"),
        ("1.2.840.10008.1.2.4.70", "ljpeg"),
        ("1.2.840.10008.1.2.4.80", "jpegls"),
        ("1.2.840.10008.1.2.4.90", "jpeg2k"),
        ("1.2.840.10008.1.2.4.201", "htj2k"),
    ],
)
def test_lossless_frames_one_by_one(tmp_path, syntax, codec):
    import imagecodecs

    frames = GREY.astype(np.uint16) * 9
    how = {
        "jpeg2k": {"codecformat": "j2k", "reversible": True, "level": 0},
        "htj2k": {"reversible": True},
        "ljpeg": {"bitspersample": 12},
    }
    encode = getattr(imagecodecs, f"{codec}_encode")
    ds = made.image(frames, bits=12)
    codes = [encode(f, **how.get(codec, {})) for f in frames]
    path = made.write(tmp_path / "a.dcm", made.compressed(ds, syntax, codes))
    np.testing.assert_array_equal(read_volume(path).array, frames)
    np.testing.assert_array_equal(read_volume(path, channel=1).array, frames[1:2])


def test_baseline_jpeg_in_ybr_is_rgb(tmp_path):
    import imagecodecs

    codes = [imagecodecs.jpeg8_encode(f, level=98, subsampling="422") for f in RGB]
    ds = made.compressed(made.image(RGB, "YBR_FULL_422"), "1.2.840.10008.1.2.4.50", codes)
    volume = read_volume(made.write(tmp_path / "j.dcm", ds))
    assert np.abs(volume.array.astype(int) - RGB).mean() < 4


def test_what_nothing_decodes_is_named(tmp_path):
    ds = made.compressed(made.image(RGB, "YBR_FULL_422"), "1.2.840.10008.1.2.4.102", [b"\0" * 8])
    with pytest.raises(ReadError, match=r"found MPEG-4 .*no plug-in.*videos: to frames"):
        read_volume(made.write(tmp_path / "v.dcm", ds))
    data = (tmp_path / "v.dcm").read_bytes()
    (tmp_path / "w.dcm").write_bytes(data.replace(b".1.2.4.102", b".1.2.4.999"))
    with pytest.raises(ReadError, match="an unknown transfer syntax") as caught:
        read_volume(tmp_path / "w.dcm")
    assert "4.999" not in str(caught.value)


def test_a_stream_of_another_size_is_not_decoded(tmp_path):
    import imagecodecs

    for codec, syntax in (("jpeg2k", "90"), ("jpegls", "80"), ("ljpeg", "70"), ("jpeg8", "50")):
        how = {"bitspersample": 8} if codec == "ljpeg" else {}
        how = {"codecformat": "j2k"} if codec == "jpeg2k" else how
        codes = [getattr(imagecodecs, f"{codec}_encode")(f, **how) for f in GREY]
        ds = made.compressed(made.image(GREY), f"1.2.840.10008.1.2.4.{syntax}", codes)
        ds.Rows = 19
        with pytest.raises(ReadError, match=r"frame 1 of \(19, 30\) .* declares \(20, 30\)"):
            read_volume(made.write(tmp_path / f"{codec}.dcm", ds))


def test_broken_boxes_of_jpeg_2000_are_refused_and_do_not_hang(tmp_path):
    import imagecodecs

    code = bytearray(imagecodecs.jpeg2k_encode(GREY[0], codecformat="jp2"))
    codes = [bytes(code)]
    ds = made.compressed(made.image(GREY[:1]), "1.2.840.10008.1.2.4.90", codes)
    assert read_volume(made.write(tmp_path / "a.dcm", ds)).array.shape == (1, 20, 30)
    code[12:16] = bytes(4)
    ds = made.compressed(made.image(GREY[:1]), "1.2.840.10008.1.2.4.90", [bytes(code)])
    with pytest.raises(ReadError, match="found broken boxes"):
        read_volume(made.write(tmp_path / "b.dcm", ds))


# Enhanced


def _phases(tmp_path, facts, n=2):
    """``n`` volumes of the anatomy, each 100 brighter, frames shuffled."""
    parts = [p for k in range(n) for p in series(answer_image() + 100 * k, **AXIAL)]
    order = list(RNG.permutation(10 * n))
    chosen = {g: {t: [f(k // 10) for k in order] for t, f in ts.items()} for g, ts in facts.items()}
    return made.write(tmp_path / "e.dcm", made.enhanced(parts, order, chosen))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"FrameContentSequence": {"TemporalPositionIndex": lambda k: k + 1}}, "2 temporal pos"),
        ({"FrameContentSequence": {"StackID": lambda k: str(k + 1)}}, "2 stacks"),
        ({"MREchoSequence": {"EffectiveEchoTime": lambda k: 10.0 + 80 * k}}, "2 echo times"),
        ({"MRDiffusionSequence": {"DiffusionBValue": lambda k: 1000.0 * k}}, "2 b-values"),
    ],
)
def test_volumes_of_one_file_are_told_apart(tmp_path, facts, said):
    path = _phases(tmp_path, facts)
    for k in range(2):
        volume = read_volume(path, channel=k)
        np.testing.assert_array_equal(volume.array, answer_image() + 100 * k)
        assert volume.geometry.spacing_zyx_mm == pytest.approx(answer_geometry().spacing_zyx_mm)
    with pytest.raises(ReadError, match=rf"one volume, found 2 in the file \({said}"):
        read_volume(path)
    with pytest.raises(ReadError, match="a volume for channel 2, found 2"):
        read_volume(path, channel=2)


def test_the_same_place_twice_without_a_reason_is_refused(tmp_path):
    with pytest.raises(GeometryError, match="one slice a position"):
        read_volume(_phases(tmp_path, {}))


def test_two_properties_make_four_volumes(tmp_path):
    facts = {
        "FrameContentSequence": {"TemporalPositionIndex": lambda k: k // 2 + 1},
        "MREchoSequence": {"EffectiveEchoTime": lambda k: 5.0 + k % 2},
    }
    path = _phases(tmp_path, facts, n=4)
    for k in range(4):
        np.testing.assert_array_equal(read_volume(path, channel=k).array, answer_image() + 100 * k)
    with pytest.raises(ReadError, match="found 4 .*2 temporal positions, 2 echo times"):
        read_volume(path)


def test_frames_have_their_own_rescale_and_gaps_are_seen(tmp_path):
    def parts():
        found = list(series(answer_image(), **AXIAL))
        for k, part in enumerate(found):
            part.RescaleSlope = f"{0.5 * (k + 1):g}"
        return found

    order = [3, 0, 7, 1, 9, 2, 8, 4, 6, 5]
    volume = read_volume(made.write(tmp_path / "e.dcm", made.enhanced(parts(), order)))
    slopes = 0.5 * (np.arange(10) + 1)[:, None, None]
    np.testing.assert_allclose(volume.array, (answer_image() + 1000) * slopes - 1000)
    with pytest.raises(GeometryError, match="even gaps of 1 mm, found 2 mm"):
        read_volume(made.write(tmp_path / "g.dcm", made.enhanced(parts(), order[:-1])))


def test_enhanced_files_of_two_series_in_a_folder(tmp_path):
    for uid in ("1.2.3", "1.2.4"):
        parts = list(series(answer_image(), series_uid=uid, **AXIAL))
        made.write(tmp_path / "s" / f"{uid}.dcm", made.enhanced(parts, list(range(10))))
    with pytest.raises(ReadError, match=r"found 2 \(10 x CT and 10 x CT slices\)"):
        dicom.read(tmp_path / "s")


def test_a_modality_that_is_none_is_not_repeated(tmp_path):
    for uid, code in (("1.2.3", "Miller^Ann"), ("1.2.4", "CT")):
        ds = made.image(GREY[:1], modality=code)
        ds.SeriesInstanceUID = uid
        made.write(tmp_path / "s" / f"{uid}.dcm", ds)
    with pytest.raises(ReadError, match="1 x unknown and 1 x CT") as caught:
        dicom.read(tmp_path / "s")
    assert "Miller" not in str(caught.value)
