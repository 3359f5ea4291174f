"""What two guides' fingerprints are said to differ in."""

from __future__ import annotations

from mmfe_cache.guides.lineage import differing_guide, only_precision

SCENE = {"guide.guide": "scene", "guide.name": "scene", "guide.weights": "a", "guide.dtype": "x"}
PROMPT = {"guide.guide": "prompt", "guide.name": "prompt", "guide.classes": ["clear", "low"]}


def test_guides_of_one_kind_differ_by_their_keys():
    other = {**SCENE, "guide.weights": "b", "guide.new": 1}
    assert differing_guide(SCENE, other) == ["new: None / 1", "weights: 'a' / 'b'"]
    assert differing_guide(SCENE, SCENE) == []
    assert only_precision(differing_guide(SCENE, {**SCENE, "guide.dtype": "y"}))


def test_of_guides_of_two_kinds_the_kinds_are_said():
    found = differing_guide(SCENE, PROMPT)
    assert found == ["guide: 'scene' / 'prompt'", "name: 'scene' / 'prompt'"]
    assert not only_precision(found)
    # A fingerprint without a kind is compared key by key.
    nameless = {k: v for k, v in PROMPT.items() if k != "guide.guide"}
    assert "classes: None / ['clear', 'low']" in differing_guide(SCENE, nameless)
