"""A report for which there is no room leaves nothing, and the one before it stays."""

import errno
import os

import pytest

from mmfe_restore.evaluation import evaluate
from mmfe_restore.evaluation.report import write_report


@pytest.mark.parametrize("writes", [0, 1, 2])
@pytest.mark.parametrize("there", [False, True])
def test_no_room_for_the_report(unguided, samples, tmp_path, monkeypatch, writes, there):
    restorer, recipe = unguided
    report = evaluate(restorer, recipe, samples, None, with_pictures=False)
    out = tmp_path / "eval"
    before = {}
    if there:
        write_report(report, out)
        before = {path.name: path.read_bytes() for path in out.iterdir()}
    done = []
    real = os.fsync

    def full(descriptor: int) -> None:
        if len(done) == writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_report(report, out, force=True)
    assert [path.name for path in tmp_path.iterdir()] == (["eval"] if there else [])
    if there:
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
