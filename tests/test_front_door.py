"""The front door: what Ctrl-C says, whoever caught it."""

from __future__ import annotations

import pytest

import sammed
from sammed_data.types import InterruptedRun, SammedError, UsageError


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted: stopped by the user; run again to continue"),
        (SystemExit(130), 130, "interrupted: stopped by the user; run again to continue"),
        (InterruptedRun("a; continue with --resume x"), 130, "a; continue with --resume x"),
        (InterruptedRun("shards stay"), 130, "interrupted: shards stay; run again to continue"),
        (SammedError("no such thing"), 1, "error: no such thing"),
        (UsageError("no such word"), 2, "error: no such word"),
        (SystemExit(3), 3, ""),
    ],
)
def test_how_a_command_ends(monkeypatch, capsys, raised, code, said):
    def app(**_):
        raise raised

    monkeypatch.setattr(sammed, "app", app)
    with pytest.raises(SystemExit) as stop:
        sammed.main()
    assert stop.value.code == code
    assert capsys.readouterr().err.strip().endswith(said)
