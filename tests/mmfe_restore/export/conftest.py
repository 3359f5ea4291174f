"""Small networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from mmfe_restore import Restorer


@pytest.fixture
def tiny(tiny: Callable[..., Restorer]) -> Callable[..., Restorer]:
    """As for all tests, but with blocks that are alike at every level.

    mmfe-small, which is exported too, has them everywhere.
    """
    return partial(tiny, num_blocks=(1, 0, 0, 1), num_refinement_blocks=0)
