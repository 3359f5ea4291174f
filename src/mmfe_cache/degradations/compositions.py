"""The names of degradations and of their compositions; needs nothing but Python.

Apart from `mmfe_cache.degradations.model`, which applies them with SciPy: whoever only names a
degradation, as the guide ``scene`` and the command line do, should not wait for that.
"""

from __future__ import annotations

from mmfe_cache.errors import UsageError

KINDS = ("low", "haze", "rain", "snow")
"""The single degradations, in the order of Table 1."""

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
