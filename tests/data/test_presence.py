"""One look at all names never excludes what `find_root` would find."""

from __future__ import annotations

import zipfile

from sammed_data.catalog import load_catalogs
from sammed_data.discover import find_root
from sammed_data.presence import possible
from tests.data import build_fakes as fakes
from tests.fakes import build_fake


def test_no_entry_that_lies_there_is_excluded(tmp_path):
    """A few entries at a time, so that a name of one does not let another through."""
    entries = load_catalogs(None)
    names = sorted(entries)[::3]
    for start in range(0, len(names), 9):
        root = tmp_path / str(start)
        made = names[start : start + 9 : 2]
        for name in made:
            build_fake(entries[name], root, n_cases=1)
        here = possible(entries, root)
        assert set(made) <= here
        if start % 27 == 0:
            assert {n for n, e in entries.items() if find_root(e, root)} <= here
            assert len(here) < len(entries)


def test_archives_links_and_hidden_names(tmp_path):
    fake, other = fakes.make_entry(), fakes.make_entry(id="other", root=["Mine_v2"])
    entries = {"fake_mr": fake, "other": other}
    assert possible(entries, tmp_path) == frozenset()
    (tmp_path / ".hidden/images").mkdir(parents=True)
    (tmp_path / ".hidden/images/a.nii.gz").touch()
    (tmp_path / "x").mkdir()
    (tmp_path / "x/again").symlink_to(tmp_path)  # would never end
    assert possible(entries, tmp_path) == frozenset()
    with zipfile.ZipFile(tmp_path / "Mine_v2.zip", "w") as archive:
        archive.writestr("images/a.nii.gz", b"")
    assert possible(entries, tmp_path) == {"other"}
    (tmp_path / "real/images").mkdir(parents=True)
    (tmp_path / "real/images/a.nii.gz").touch()
    (tmp_path / "Mine_v2.zip").unlink()
    (tmp_path / "fake_mr").symlink_to("real")
    assert possible(entries, tmp_path) == {"fake_mr", "other"}
