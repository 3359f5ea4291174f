"""The fault experiments of `benchmarks/cache_faults.py`, at small counts."""

import sys

import pytest

from benchmarks import cache_faults
from benchmarks.cache_faults import holds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks and mounts as Linux does")


def test_killed_builds_resume_to_the_same_bytes(tmp_path):
    found = cache_faults.kills(8, tmp_path, seed=1)
    assert holds("kills", found), found
    assert found["kills"] == 8


def test_killed_builds_of_two_ranks_resume_to_the_same_bytes(tmp_path):
    found = cache_faults.kills(3, tmp_path, ranks=2, seed=2)
    assert holds("kills", found), found
    assert found["survivors"] > 0


def test_every_flipped_bit_is_detected_and_repaired(tmp_path):
    found = cache_faults.flips(60, tmp_path, seed=3)
    assert holds("flips", found), found


def test_a_full_disk_is_said_clearly_and_survived(tmp_path):
    found = cache_faults.disk_full(5, tmp_path, seed=4)
    assert holds("disk_full", found), found


def test_a_folder_removed_during_the_build(tmp_path):
    found = cache_faults.removed(2, tmp_path, seed=5)
    assert holds("removed", found), found


def test_a_folder_that_may_not_be_written(tmp_path):
    found = cache_faults.read_only(tmp_path)
    assert holds("read_only", found), found


def test_truncated_swapped_foreign_and_other_versions_are_refused_by_name(tmp_path):
    found = cache_faults.refused(25, tmp_path, seed=6)
    assert holds("refused", found), found


def test_a_clock_that_jumps_changes_nothing(tmp_path):
    found = cache_faults.clocks(2, tmp_path, seed=7)
    assert holds("clocks", found), found
