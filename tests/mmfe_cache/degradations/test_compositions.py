import pytest

from mmfe_cache.degradations import (
    CLEAR,
    COMPOSITIONS,
    check_kinds,
    kinds_of,
    partial_class,
    partial_classes,
    split_class,
)
from mmfe_cache.errors import UsageError


def test_every_proper_part_of_a_composition_is_a_class_of_partial_targets():
    assert partial_classes("rain") == partial_classes(CLEAR) == ()
    assert set(partial_classes("low_rain")) == {"low_rain-only-low", "low_rain-only-rain"}
    for composition in COMPOSITIONS:
        found = partial_classes(composition)
        count = len(kinds_of(composition))
        assert len(set(found)) == len(found) == 2**count - 2
        for name in found:
            whole, wanted = split_class(name)
            assert whole == composition
            assert set() < set(wanted) < set(kinds_of(composition))
            assert partial_class(whole, wanted[::-1]) == name


@pytest.mark.parametrize(
    "label",
    ["low_rain", "clear", "noise-25", "indoor-only-rain", "rain-only-rain", "low_rain-only-", "x"],
)
def test_other_classes_take_everything_away(label):
    assert split_class(label) == (label, None)


def test_kinds_are_checked_and_put_in_order():
    assert check_kinds(["snow", "low", "snow"]) == ("low", "snow")
    with pytest.raises(UsageError, match="fog"):
        check_kinds(["fog", "rain"])
    with pytest.raises(UsageError, match="no degradation"):
        check_kinds([])
