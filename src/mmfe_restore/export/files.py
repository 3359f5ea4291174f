"""`mmfe export`: which kinds of file there are, and who writes each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfe_cache.errors import UsageError

if TYPE_CHECKING:
    from mmfe_restore.export.parts import Inside
    from mmfe_restore.model import Restorer

KINDS = {
    ".onnx": "ONNX, for onnxruntime and whatever else runs it",
    ".safetensors": "network and guide in one file, for spandrel and ComfyUI",
    ".pt2": "a program of torch.export; needs --static",
}
"""The endings that `mmfe export` knows."""

_TORCHSCRIPT = {".pt", ".pth", ".ts", ".torchscript"}


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
        UsageError: an unknown ending, a folder, or a size that is missing or of no use.
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
    if kind == ".pt2" and static is None:
        raise UsageError(
            "a .pt2 file holds one size of image", expected="--static HxW, such as 720x1080"
        )
    if kind == ".safetensors" and static is not None:
        raise UsageError(
            "a .safetensors file holds weights, which have no size", remedy="leave --static out"
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
    from mmfe_restore.export.parts import facts_of, gather_parts

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
