"""Files of `mmfe export -o FILE.safetensors` for spandrel, and so for programs that load by it.

    import mmfe_restore.spandrel
    mmfe_restore.spandrel.install()
    model = spandrel.ModelLoader().load_from_file("mmfe-small.safetensors")
    restored = model(image)  # (1, 3, H, W) in [0, 1]

Needs spandrel, the extra `spandrel`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from mmfe_cache.errors import UsageError
from mmfe_restore.export.guided import CONFIG, GuidedRestorer, read_guided

if TYPE_CHECKING:
    from spandrel import Architecture, ArchRegistry, StateDict


def install(*, ignore_duplicates: bool = False) -> list[Any]:
    """Add mmfe's architecture to spandrel's main registry, as `spandrel_extra_arches` does it.

    Args:
        ignore_duplicates: whether a second call is let pass instead of being an error.

    Returns:
        What was added.

    Raises:
        UsageError: spandrel is not installed.
    """
    return _spandrel().MAIN_REGISTRY.add(*registry(), ignore_duplicates=ignore_duplicates)


@cache
def registry() -> ArchRegistry:
    """The architecture of mmfe alone, for a ModelLoader of one's own.

    Raises:
        UsageError: spandrel is not installed.
    """
    spandrel = _spandrel()
    own = spandrel.ArchRegistry()
    own.add(spandrel.ArchSupport.from_architecture(_architecture()))
    return own


def _spandrel() -> Any:
    try:
        import spandrel
    except ImportError:
        raise UsageError(
            "spandrel is not installed", remedy="pip install 'mmfe[spandrel]'"
        ) from None
    return spandrel


def _architecture() -> Architecture[GuidedRestorer]:
    from spandrel import Architecture, ImageModelDescriptor, ModelTiling, SizeRequirements

    class MmfeArch(Architecture[GuidedRestorer]):
        """A restorer that brings its guide along: image in, image out.

        Any size is taken: the network pads by itself, and the guide must not see such padding.
        Large images are not to be cut into tiles by the program: the guide needs the whole image.
        They are restored exactly, in strips.
        """

        def __init__(self) -> None:
            super().__init__(id="MMFE", name="MMFE-IR", detect=lambda state: CONFIG in state)

        def load(self, state_dict: StateDict) -> ImageModelDescriptor[GuidedRestorer]:
            """Load a state dict of `mmfe_restore.export.guided`.

            Raises:
                ModelError: it is damaged or of another version.
            """
            model = read_guided(state_dict)
            width = model.restorer.config.width
            return ImageModelDescriptor(
                model,
                model.state_dict(),  # spandrel loads it once more; the file's also holds a text
                architecture=self,
                purpose="Restoration",
                tags=[f"{width}dim", "guided by scene" if model.scene else "without a guide"],
                supports_half=False,  # the guide looks in float32, as in training
                supports_bfloat16=False,
                scale=1,
                input_channels=3,
                output_channels=3,
                size_requirements=SizeRequirements(),
                tiling=ModelTiling.INTERNAL,
            )

    return MmfeArch()
