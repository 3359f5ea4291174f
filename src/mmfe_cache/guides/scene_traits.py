"""What ``scene`` sees beyond how strong each degradation is: what undoing it takes.

Two pictures under haze of one severity need different things where the haze is grey or white, and
how much to smooth a dark picture is a matter of its noise, not of its darkness.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.degradations.haze import AIRLIGHT
from mmfe_cache.degradations.low import NOISE

TRAITS = ("airlight", "noise", "luminance")
"""The haze's airlight, from 0 (darkest published) to 1; the standard deviation of low light's
noise, 1 the strongest published; the mean of the clean picture's red, green and blue."""


def applied_traits(parameters: Mapping[str, Mapping[str, float]]) -> NDArray[np.float32]:
    """The traits that lie in how a picture was degraded: all but the last.

    Args:
        parameters: of each degradation, as `degrade` records them.

    Returns:
        (2,) in [0, 1]; NaN where the degradation that has the trait is not there.
    """
    darkest, brightest = AIRLIGHT
    airlight = parameters.get("haze", {}).get("airlight", np.nan)
    noise = parameters.get("low", {}).get("noise", np.nan)
    traits = np.array([(airlight - darkest) / (brightest - darkest), noise / NOISE[1]], np.float32)
    return np.clip(traits, 0, 1)  # varied haze may be darker or brighter than published; NaN stays
