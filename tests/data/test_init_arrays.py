"""`sammed data init` on arrays: npy and npz, in pairs, in one file, in stacks; axes and doubts."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from sammed_data.catalog import CatalogEntry
from sammed_data.discover import discover
from sammed_data.ontology import load_ontology
from sammed_data.propose.carriers import Answers
from sammed_data.propose.inspect import Inspector
from sammed_data.propose.overlays import try_build
from sammed_data.types import ReadError, UsageError
from tests.data import init_folders as folders

load_ontology = functools.cache(load_ontology)


def save(path, array, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        np.savez_compressed(path, **arrays)


def volume(seed, depth=12):
    """Slices that are like their neighbours; rows and columns differ."""
    z, y, x = np.mgrid[:depth, :40, :50]
    return (90 * np.sin((z + seed) / 5) + 60 * np.sin(y / 7) + 40 * np.cos(x / 9)).astype(np.int16)


def blob(depth=12):
    labels = np.zeros((depth, 40, 50), np.uint8)
    labels[3:9, 8:30, 12:33] = 1
    labels[4:7, 12:20, 15:25] = 2
    return labels


def only(root, **answers):
    (proposal,) = Inspector(root, load_ontology(None)).proposals(Answers(**answers))
    entry = CatalogEntry.model_validate(proposal.entry)
    said = {i.key: i for i in proposal.inferences}
    return entry, said, discover(entry, root).cases, proposal


def built(proposal, root):
    trial = try_build(proposal.entry, root, None, n=3)
    assert trial.failure == ""
    assert not [r for r in trial.rejected if r.level == "case"]
    return trial


@pytest.mark.parametrize(
    ("image", "mask"),
    [("images/c{}.npy", "masks/c{}.npy"), ("scan{}.npy", "scan{}_mask.npy"),
     ("images/c{}.npz", "labels/c{}.npz"), ("images/c{}.png", "masks/c{}.npy")],
)  # fmt: skip
def test_pictures_as_arrays(tmp_path, image, mask):
    for k in range(4):
        if image.endswith("png"):
            folders.save(tmp_path / image.format(k), folders.picture(k))
        else:
            save(tmp_path / image.format(k), folders.picture(k), arr_0=folders.picture(k))
        save(tmp_path / mask.format(k), folders.disc(k), arr_0=folders.disc(k))
    entry, said, cases, proposal = only(tmp_path)
    assert (entry.label_encoding.type, set(entry.labels), entry.dims) == ("binary", {"1"}, "2D")
    assert (said["axes"].doubt, said["pairs"].doubt) == ("low", "low")
    assert len(cases) == 4
    assert built(proposal, tmp_path).masks == 3


@pytest.mark.parametrize("last", [False, True])
def test_volumes_by_the_odd_side(tmp_path, last):
    for k in range(3):
        image, labels = volume(k), blob()
        if last:
            image, labels = np.moveaxis(image, 0, -1), np.moveaxis(labels, 0, -1)
        save(tmp_path / f"img/p{k}.npy", image)
        save(tmp_path / f"seg/p{k}.npy", labels)
    entry, said, cases, proposal = only(tmp_path)
    axes = "YXZ" if last else "ZYX"
    assert [p.axes for p in (*entry.layout.images, *entry.layout.labels)] == [axes, axes]
    assert (entry.dims, entry.label_encoding.type, set(entry.labels)) == ("3D", "index", {"1", "2"})
    assert said["axes"].doubt == "medium"  # nothing in the file says which axis is which
    assert len(cases) == 3
    assert built(proposal, tmp_path).images == 18  # slices 3 to 8 of three cases


def test_image_and_mask_in_one_file(tmp_path):
    for k in range(3):
        save(tmp_path / f"case{k:04d}.npz", None, image=volume(k), label=blob(),
             spacing=np.array([5.0, 0.7, 0.7]))  # fmt: skip
    entry, said, cases, proposal = only(tmp_path)
    assert (entry.layout.images[0].variable, entry.layout.labels[0].variable) == ("image", "label")
    assert entry.layout.images[0].pattern == entry.layout.labels[0].pattern
    assert said["pairs"].evidence.endswith("arrays of one file")
    assert len(cases) == 3
    built(proposal, tmp_path)


def test_arrays_of_matlab(tmp_path):
    from scipy.io import savemat

    for k in range(3):
        arrays = {"img": np.moveaxis(volume(k), 0, -1), "seg": np.moveaxis(blob(), 0, -1)}
        savemat(tmp_path / f"p{k}.mat", arrays | {"age": 40.0}, do_compression=True)
    entry, said, cases, proposal = only(tmp_path)
    assert (entry.layout.images[0].variable, entry.layout.images[0].axes) == ("img", "YXZ")
    assert (entry.layout.labels[0].variable, entry.layout.labels[0].axes) == ("seg", "YXZ")
    assert (len(cases), said["axes"].doubt) == (3, "medium")
    assert built(proposal, tmp_path).masks > 0


@pytest.mark.parametrize("colours", [False, True])
def test_stacks_of_images(tmp_path, colours):
    save(tmp_path / "images.npy", np.stack([folders.picture(k, colours) for k in range(9)]))
    save(tmp_path / "masks.npy", np.stack([folders.disc(k) for k in range(9)]))
    entry, said, cases, proposal = only(tmp_path)
    assert entry.layout.images[0].axes == ("NYXC" if colours else "NYX")
    assert entry.layout.labels[0].axes == "NYX"
    assert entry.dims == "2D"
    assert said["axes"].doubt == "medium"
    assert said["patient"].doubt == "high"  # one file: nobody can be told apart
    assert len(cases) == 9
    assert built(proposal, tmp_path).masks == 3


def test_colours_and_singleton_axes(tmp_path):
    for k in range(3):
        save(tmp_path / f"images/c{k}.npy", folders.picture(k, colours=True))
        save(tmp_path / f"masks/c{k}.npy", folders.disc(k)[..., None] > 0)
    entry, said, _, proposal = only(tmp_path)
    assert entry.layout.images[0].axes == "YXC"
    assert entry.layout.labels[0].axes == "YXZ"
    assert said["axes"].doubt == "low"
    built(proposal, tmp_path)


def test_cubes_and_planes_of_colour_are_in_high_doubt(tmp_path):
    for k in range(3):
        save(tmp_path / f"a/images/c{k}.npy", np.moveaxis(folders.picture(k, colours=True), -1, 0))
        save(tmp_path / f"a/masks/c{k}.npy", folders.disc(k))
        cube = np.random.default_rng(k).integers(0, 999, (24, 24, 24))
        save(tmp_path / f"b/images/c{k}.npy", cube)
        save(tmp_path / f"b/masks/c{k}.npy", (cube > 500).astype(np.uint8))
    for part in ("a", "b"):
        entry, said, _, _ = only(tmp_path / part)
        assert said["axes"].doubt == "high"
        assert said["axes"].flag == "--axes"
    entry, said, _, _ = only(tmp_path / "b", axes="NYX")
    assert (entry.layout.images[0].axes, entry.layout.labels[0].axes) == ("NYX", "NYX")
    assert said["axes"].doubt == "low"


def test_shapes_that_do_not_fit_are_said(tmp_path):
    for k in range(3):
        save(tmp_path / f"images/c{k}.npy", folders.picture(k))
        save(tmp_path / f"masks/c{k}.npy", folders.disc(k)[::2])
    _, said, _, _ = only(tmp_path)
    assert said["axes"].doubt == "high"
    assert "do not fit" in said["axes"].evidence


@pytest.mark.parametrize(("text", "word"), [("ZZX", "different letters"), ("YX", "3 letters")])
def test_axes_that_cannot_be(tmp_path, text, word):
    save(tmp_path / "img/p1.npy", volume(0))
    save(tmp_path / "seg/p1.npy", blob())
    with pytest.raises(UsageError, match=word):
        only(tmp_path, axes=text)


def test_files_that_do_not_say_which_array_are_named(tmp_path):
    save(tmp_path / "c0.npz", None, a=volume(0), b=blob())
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    inspector = Inspector(tmp_path, load_ontology(None))
    why = dict(inspector.unreadable)
    assert "`variable`" in why["c0.npz"]
    assert "never unpickled" in why["objects.npy"]
    with pytest.raises(ReadError, match="none that a reader knows"):
        inspector.proposals(Answers())


def test_masks_of_four_channels_are_said(tmp_path):
    for k in range(3):
        save(tmp_path / f"images/c{k}.npy", folders.picture(k, colours=True))
        one_hot = np.stack([folders.disc(k + n) > 0 for n in range(4)], axis=-1)
        save(tmp_path / f"masks/c{k}.npy", one_hot.astype(np.uint8))
    _, said, _, _ = only(tmp_path)
    assert said["encoding"].doubt == "high"
    assert "4 channels" in said["encoding"].evidence


def test_many_files_are_not_all_opened(tmp_path, monkeypatch):
    from sammed_data.propose import arrays

    for k in range(20):
        save(tmp_path / f"images/c{k}.npy", volume(k))
        save(tmp_path / f"masks/c{k}.npy", blob())
    monkeypatch.setattr(arrays, "MAX_HEADERS", 24)
    entry, said, cases, _ = only(tmp_path)
    assert len(cases) == 20
    assert entry.layout.labels[0].axes == "ZYX"
    assert "headers of at most 12" in said["format"].evidence
    assert said["format"].doubt == "medium"
