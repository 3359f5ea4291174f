"""Stage two of mmfe: the guided restorer, its training, evaluation and use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from mmfe_restore.model.restorer import Restorer as Restorer
    from mmfe_restore.recipes import load_recipe as load_recipe


# Imported when asked for (PEP 562): reading a recipe must not load torch.
__getattr__, __dir__ = lazy_names(
    __name__, {"model.restorer": ["Restorer"], "recipes": ["load_recipe"]}
)
