"""`mmfe export`: which kinds of file there are, what goes into one, and who writes each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mmfe_cache.errors import MmfeError, UsageError
from mmfe_cache.guides.registry import find_guide
from mmfe_restore.model.folders import shipped_models

if TYPE_CHECKING:
    from torch import Tensor

    from mmfe_cache.embeddings import Tokens
    from mmfe_cache.guides.scene.network import SceneNetwork
    from mmfe_cache.views import View
    from mmfe_restore.model import Restorer

KINDS = {
    ".onnx": "ONNX, for onnxruntime and whatever else runs it",
    ".safetensors": "network and guide in one file, for spandrel and ComfyUI",
    ".pt2": "a program of torch.export; needs --static",
}
"""The endings that `mmfe export` knows."""

_DIGEST = "restorer_sha256"
"""A fact that only exported files have."""

_TORCHSCRIPT = {".pt", ".pth", ".ts", ".torchscript"}

Inside = Literal["auto", "scene", "none", "inputs"]
"""Where an exported network's guidance comes from: ``scene`` in the file, the null guidance, or
embeddings that its user computes. ``auto``: `scene` where the network was trained with it."""


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: the file.
        kind: its ending.
        inputs: what it takes: ``image``, and the embeddings that are not made inside.
        size: bytes.
        facts: what it says of itself: version, hashes, licence.
        note: what its user should know; None where there is nothing.
    """

    path: Path
    kind: str
    inputs: tuple[str, ...]
    size: int
    facts: dict[str, str]
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return {**asdict(self), "path": str(self.path), "inputs": list(self.inputs)}


def check_target(path: Path, static: tuple[int, int] | None) -> None:
    """Refuse, before anything is loaded, what cannot be written.

    Raises:
        UsageError: an unknown ending, a folder, a size that is missing or of no use, or weights
            that lie there and are no export, such as those of the run that is exported.
    """
    kind = path.suffix.lower()
    if kind in _TORCHSCRIPT:
        raise UsageError(
            "TorchScript is not written: PyTorch has given it up in favour of torch.export",
            got=path,
            expected=" or ".join(KINDS),
            remedy="-o FILE.pt2 --static HxW",
        )
    if kind not in KINDS:
        raise UsageError("-o names no kind of file", got=path, expected=" or ".join(KINDS))
    if path.is_dir():
        raise UsageError("-o is a folder", got=path, expected=f"a new FILE{kind}")
    if kind == ".safetensors" and path.exists():
        _check_own(path)
    if kind == ".pt2" and static is None:
        raise UsageError(
            "a .pt2 file holds one size of image", expected="--static HxW, such as 720x1080"
        )
    if kind == ".safetensors" and static is not None:
        raise UsageError(
            "a .safetensors file holds weights, which have no size", remedy="leave --static out"
        )


def _check_own(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            if _DIGEST in (file.metadata() or {}):
                return
    except (SafetensorError, OSError):
        pass  # nor is it an export that was damaged: those are written whole
    raise UsageError(
        f"{path} is not written over: it is no file of `mmfe export`",
        got="other weights, or no weights",
        expected="a new file, or one that `mmfe export` wrote",
        remedy="choose another name with -o",
    )


def export_model(
    restorer: Restorer,
    path: Path,
    *,
    source: str = "",
    inside: Inside = "auto",
    static: tuple[int, int] | None = None,
) -> Exported:
    """Write a network for other programs; the file appears whole or not at all.

    Args:
        restorer: the network; converted to float32 on the CPU in place.
        path: where to; its ending says what is written, see `KINDS`.
        source: what ``restorer`` was loaded from, as the file will name it.
        inside: where its guidance comes from.
        static: (H, W), for a file that takes this size alone.

    Returns:
        What was written, and what it takes.

    Raises:
        UsageError: what cannot be written, or a guide that does not fit into a file.
        ModelError: as `gather_parts` raises it.
        GuideError: likewise.
    """
    check_target(path, static)
    kind = path.suffix.lower()
    parts = gather_parts(restorer, "inputs" if kind == ".pt2" and inside == "auto" else inside)
    facts = facts_of(parts, source)
    note = parts.note
    if kind == ".onnx":
        from mmfe_restore.export.onnx_file import write_onnx

        inputs = write_onnx(path, parts, facts, static=static)
    elif kind == ".safetensors":
        from mmfe_restore.export.guided import write_guided

        write_guided(path, parts, facts)
        inputs = ("image",)
    else:
        from mmfe_restore.export.program import write_program

        assert static is not None
        inputs = write_program(path, parts, facts, static)
        if parts.asks_for and inside == "auto":
            note = "the guide is not inside: the program takes embeddings as inputs"
    return Exported(path, kind, inputs, path.stat().st_size, facts, note)


@dataclass(frozen=True)
class SceneInside:
    """The guide `scene`, as an exported file has it.

    Attributes:
        network: its network.
        view: what it sees of a picture: ``native`` or ``whole@r``.
        tokens: which of its tokens the restorer reads.
        digest: SHA-256 of its weights' file.
        weights: that file; None for the shipped one.
    """

    network: SceneNetwork
    view: View
    tokens: Tokens
    digest: str
    weights: Path | None = None


@dataclass(frozen=True)
class Parts:
    """A network ready to be exported.

    Attributes:
        restorer: float32, on the CPU, in evaluation mode.
        guide: the guide that comes along; None where there is none in the file.
        null_guidance: whether the network's own null guidance takes a guide's place.
        asks_for: the embeddings that the file's user has to give.
        note: why they are asked for, where nobody chose that.
    """

    restorer: Restorer
    guide: SceneInside | None = None
    null_guidance: bool = False
    asks_for: tuple[str, ...] = ()
    note: str | None = None


def gather_parts(restorer: Restorer, inside: Inside = "auto") -> Parts:
    """Find what belongs into an exported file.

    Args:
        restorer: the network; converted to float32 on the CPU in place.
        inside: where its guidance comes from.

    Returns:
        The network, and where its guidance comes from.

    Raises:
        UsageError: a network that normalises its embeddings; ``scene`` for a network of another
            guide; ``scene`` or ``inputs`` for one that reads none; a view that no file can hold; no
            null guidance where ``none`` asks for it.
        ModelError: nobody says which recipe trained the network.
        GuideError: the guide is in another state than in training.
    """
    from mmfe_restore.inference.guide import guide_for

    restorer = restorer.float().cpu().eval()
    reads = restorer.config.reads
    if not reads:
        if inside in ("scene", "inputs"):
            guide_for(restorer, name=inside)  # which refuses a network that reads nothing
        return Parts(restorer)
    if inside == "none":
        guide_for(restorer, name="none")  # which refuses a network without null guidance
        return Parts(restorer, null_guidance=True)
    if restorer.recipe is not None and restorer.recipe.guide.normalise != "none":
        raise UsageError(
            "a network that normalises its embeddings cannot be exported with guidance: the file "
            "would read them as they are",
            got=f"guide.normalise {restorer.recipe.guide.normalise}",
            expected="a network trained with guide.normalise=none",
            remedy="--guide none, where the network has a null guidance",
        )
    if inside == "inputs":
        return Parts(restorer, asks_for=reads)
    name = None if restorer.recipe is None else restorer.recipe.guide.name
    named = name is not None and _is_scene(name)
    if inside == "auto" and name is not None and not named:
        note = f"the guide {name} is too large for the file, which takes its embeddings as inputs"
        return Parts(restorer, asks_for=reads, note=note)
    if inside == "scene" and name is not None and not named:
        raise UsageError(
            "the network was trained with another guide",
            got=name,
            expected="scene",
            remedy="--guide inputs: the file then takes the embeddings that the network reads",
        )
    return Parts(restorer, guide=_scene_inside(restorer))


def _is_scene(name: str) -> bool:
    """Whether a guide's name means `scene`, shipped or trained by a user."""
    try:
        return find_guide(name).kind == "scene"
    except MmfeError:  # it is not here: only a missing file of `mmfe guide train` is then said
        return name.endswith(".safetensors") and ":" not in name


def _scene_inside(restorer: Restorer) -> SceneInside:
    from mmfe_cache.guides.scene.guide import SceneGuide
    from mmfe_restore.inference.guide import guide_for

    looking = guide_for(restorer, device="cpu")
    assert looking is not None and isinstance(looking.guide, SceneGuide)
    if looking.view.family == "crop":
        raise UsageError(
            "the guide cannot be exported: it sees a crop of each photograph",
            got=f"eval.view {looking.view.name}",
            expected="native or whole@r",
            remedy="--guide inputs: the file then takes the embeddings that the network reads",
        )
    guide = looking.guide
    return SceneInside(guide.network, looking.view, looking.tokens, guide.digest, guide.weights)


def facts_of(parts: Parts, source: str) -> dict[str, str]:
    """What a file says of itself: version, hashes, licence, where its guidance comes from.

    Args:
        parts: what the file holds.
        source: what was exported: a shipped network's name, or a path.

    Returns:
        Name to text, as docs/export.md lists them under *metadata*.
    """
    shipped = shipped_models().get(source)
    guidance = "scene" if parts.guide is not None else "null" if parts.null_guidance else "none"
    facts = {
        "mmfe": version("mmfe"),
        "model": source if shipped is not None else Path(source).name,
        _DIGEST: _digest(parts.restorer.state_dict().items()),
        "guidance": "embeddings" if parts.asks_for else guidance,
        "licence": "unknown" if shipped is None else shipped.licence,
        "size_multiple": str(parts.restorer.size_multiple),
    }
    if parts.guide is not None:
        facts["guide_sha256"] = parts.guide.digest
        facts["view"] = parts.guide.view.name
    elif parts.asks_for and (recipe := parts.restorer.recipe) is not None:
        facts |= {"view": recipe.eval.view, "tokens": recipe.guide.tokens}
    return facts


def _digest(state: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names and float32 values, sorted by name: the same for every file format."""
    found = hashlib.sha256()
    for name, tensor in sorted(state, key=lambda one: one[0]):
        found.update(name.encode())
        found.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
