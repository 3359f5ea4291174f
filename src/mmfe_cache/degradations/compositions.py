"""The names of degradations and of their compositions; needs nothing but Python.

Apart from `mmfe_cache.degradations.model`, which applies them with SciPy: whoever only names a
degradation, as the guide ``scene`` and the command line do, should not wait for that.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import combinations

from mmfe_cache.errors import UsageError

KINDS = ("low", "haze", "rain", "snow")
"""The single degradations, in the order of Table 1."""

KIND_NAMES = {"low": "low light", "haze": "haze", "rain": "rain", "snow": "snow"}
"""The single degradations in words."""

APPLIED = ("low", "rain", "snow", "haze")
"""The same in the order in which they are applied."""

COMPOSITIONS: tuple[str, ...] = (
    *KINDS,
    "low_haze",
    "low_rain",
    "low_snow",
    "haze_rain",
    "haze_snow",
    "low_haze_rain",
    "low_haze_snow",
)
"""The 11 classes of CDD11, in the order of Table 1."""

CLEAR = "clear"
"""The class of pictures to which nothing was done."""


def kinds_of(composition: str) -> tuple[str, ...]:
    """The single degradations of a class name, in the order in which they are applied.

    Args:
        composition: kinds joined by ``_``, in any order, such as ``"low_haze"``; ``"clear"`` is
            none.

    Raises:
        UsageError: a kind is unknown or named twice.
    """
    named = [] if composition == CLEAR else composition.split("_")
    if not set(named) <= set(APPLIED) or len(set(named)) != len(named):
        raise UsageError(
            f"unknown composition {composition!r}",
            got=composition,
            expected=f"kinds joined by _, such as {', '.join(COMPOSITIONS)}",
        )
    return tuple(kind for kind in APPLIED if kind in named)


_ONLY = "-only-"


def partial_class(composition: str, wanted: Collection[str]) -> str:
    """The name of a class of partial targets, such as ``"low_rain-only-rain"``.

    Its pictures are those of ``composition``; their ground truth has all of that but ``wanted``,
    which alone is to be taken away.
    """
    return f"{composition}{_ONLY}{'_'.join(kind for kind in KINDS if kind in wanted)}"


def partial_classes(composition: str) -> tuple[str, ...]:
    """Every class of partial targets of a composition: none where it is a single degradation."""
    kinds = kinds_of(composition)
    subsets = (wanted for n in range(1, len(kinds)) for wanted in combinations(kinds, n))
    return tuple(partial_class(composition, wanted) for wanted in subsets)


def split_class(label: str) -> tuple[str, tuple[str, ...] | None]:
    """The composition of a class's pictures, and what of it is to be taken away.

    Returns:
        ``("low_rain", ("rain",))`` for ``"low_rain-only-rain"``; the label and None for a class in
        which everything is to be taken away.
    """
    composition, only, wanted = label.partition(_ONLY)
    if only:
        try:
            kinds = kinds_of(wanted)
            if kinds and set(kinds) < set(kinds_of(composition)):
                return composition, kinds
        except UsageError:  # a class of somebody's own that is merely called so
            pass
    return label, None


def check_kinds(kinds: Collection[str]) -> tuple[str, ...]:
    """Names of single degradations, each once, in the order of `KINDS`.

    Raises:
        UsageError: none, or one that is unknown.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise UsageError(
            "unknown degradation" if unknown else "no degradation is named",
            got=", ".join(unknown) or "nothing",
            expected=f"some of {', '.join(KINDS)}",
        )
    return tuple(kind for kind in KINDS if kind in kinds)
