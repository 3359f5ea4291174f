"""What every guide can do, and what those that look at pictures have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from mmfe_cache.embeddings import Embeddings
from mmfe_cache.errors import GuideError, UsageError
from mmfe_cache.machine import LongName as Precision, float32_products, pick_device, require_bf16
from mmfe_cache.samples import ImageArray, Sample

from .registry import GuideInfo


class AsyncCopy:
    """A batch's embeddings on their way to the CPU.

    From a GPU they are copied into pinned memory behind the work that makes them, so the CPU
    queues the next batch meanwhile instead of waiting; from a CPU there is nothing to wait for.

    Args:
        found: the embeddings, on the device that computes them.
    """

    def __init__(self, found: Embeddings) -> None:
        devices = {tensor.device for tensor in found.present().values() if tensor.is_cuda}
        if devices:
            found = found.map(_to_pinned)
        # The copies run on the tensors' own devices, which need not be the current one.
        self._copied = [torch.cuda.Event() for _ in devices]
        for event, device in zip(self._copied, devices, strict=True):
            event.record(torch.cuda.current_stream(device))
        self._found = found.to("cpu")

    def result(self) -> Embeddings:
        """Wait for the copy; CPU tensors that a network with gradients may read."""
        while self._copied:
            self._copied.pop().synchronize()
        return self._found.out_of_inference()


def _to_pinned(tensor: Tensor) -> Tensor:
    # The allocator keeps pinned blocks and gives one out again only after its last copy is done.
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to ``device``; to a GPU from page-locked memory, without waiting for it."""
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


@runtime_checkable
class Guide(Protocol):
    """A frozen model that turns degraded images into embeddings.

    Attributes:
        name: its registry name, or the directory's name for a local checkpoint.
        dim: D, the width of its embeddings.
        reads: ``"pixels"``, or ``"severities"`` for the oracle, which sees no picture.
        calls: how many samples this object has encoded so far.
    """

    name: str
    dim: int
    reads: Literal["pixels", "severities"]
    calls: int

    def encode(self, images: Sequence[ImageArray]) -> Embeddings:
        """Encode B uint8 RGB images (H, W, 3) of any sizes.

        Returns:
            CPU float32 ``image`` (B, 17, D), ``joint`` (B, 17, D) and ``answer`` (B, D).
        """
        ...

    def prepare(self, image: ImageArray) -> Any:
        """The CPU half of `encode` for one image; picklable, so that a worker can run it."""
        ...

    def encode_prepared(self, prepared: Sequence[Any]) -> Embeddings:
        """The device half of `encode` for B prepared images."""
        ...

    def encode_samples(self, samples: Sequence[Sample]) -> Embeddings:
        """Encode from the samples' recorded severities; only where ``reads`` says so."""
        ...

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything of this guide that changes its embeddings, ``guide`` being its kind; JSON."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """For users: ``name``, ``kind``, ``dim``, ``licence``, ``weights`` and more; JSON."""
        ...


@runtime_checkable
class Promptable(Protocol):
    """A guide that is asked a question."""

    def with_prompt(self, prompt: str | None) -> Guide:
        """The same guide asking ``prompt``, None the paper's question; they share one network."""
        ...


@runtime_checkable
class AsksOnly(Protocol):
    """A guide whose embeddings can ask for some degradations and leave the others."""

    def only(self, embeddings: Embeddings, kinds: Collection[str]) -> Embeddings:
        """What it would say if nothing but ``kinds`` were wrong with the pictures.

        Args:
            embeddings: as `Guide.encode` gave them.
            kinds: single degradations.
        """
        ...


@runtime_checkable
class AsyncGuide(Protocol):
    """A guide that can be given a batch while its device still works on the one before.

    Attributes:
        ahead: how many batches are worth starting before the first is waited for.
    """

    ahead: int

    def start(self, prepared: Sequence[Any]) -> AsyncCopy:
        """Begin the device half of `encode` for B prepared images.

        Raises:
            RuntimeError: the device's memory ran out; nothing of the batch is left running.
        """
        ...


_COUNT = [0]


def record_calls(samples: int) -> None:
    """Count ``samples`` more encoded samples; every guide calls this where its network runs."""
    _COUNT[0] += samples


def guide_calls() -> int:
    """How many samples any guide of this process has encoded so far."""
    return _COUNT[0]


_DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def pick_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Turn ``"auto"`` into bfloat16 on a GPU and float32 elsewhere.

    Raises:
        UsageError: there is no such precision, or the device has none such.
    """
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" else "float32"
    if precision == "bfloat16":
        require_bf16(device, "--precision float32, or float16 where the guide's values allow it")
    if precision not in _DTYPES:
        raise UsageError(
            "unknown precision", got=repr(precision), expected=f"auto, {', '.join(_DTYPES)}"
        )
    if precision == "tf32" and device.type != "cuda":
        raise UsageError(
            "TF32 is arithmetic of NVIDIA's GPUs",
            got=f"--precision tf32 on {device}",
            expected="--precision float32, which gives the same numbers to three digits",
        )
    return _DTYPES[precision]


class PixelGuide(ABC):
    """A guide that sees pictures; subclasses prepare one picture and encode equal-shaped ones.

    Pickling keeps what `prepare` needs and leaves the network behind, so that the bound method
    ``guide.prepare`` can be sent to a worker process.

    Attributes:
        name: its registry name, or the directory's name for a local checkpoint.
        dim: D, the width of its embeddings.
        reads: always ``"pixels"``.
        takes_prompt: whether it is asked a question.
        calls: how many samples this object has encoded so far.
        dtype: of its weights and arithmetic.
        tf32: whether its float32 products may run in TF32; the fingerprint says where they do.
    """

    reads: Literal["pixels", "severities"] = "pixels"
    takes_prompt: ClassVar[bool] = False
    dtype: torch.dtype = torch.float32
    tf32: bool = False
    _network: Any = None

    def __init__(self, name: str, dim: int, network: Any, device: torch.device) -> None:
        self.name = name
        self.dim = dim
        self.calls = 0
        self.device = device
        self._network = network

    @abstractmethod
    def prepare(self, image: ImageArray) -> Any:
        """The CPU half of `encode` for one image (H, W, 3) uint8; picklable."""

    @abstractmethod
    def fingerprint(self) -> Mapping[str, Any]:
        """Everything of this guide that changes its embeddings; JSON values only."""

    @abstractmethod
    def describe(self) -> Mapping[str, Any]:
        """What a user wants to know of it."""

    @abstractmethod
    def _shape(self, prepared: Any) -> Hashable:
        """What must agree for prepared images to share a batch."""

    @abstractmethod
    def _encode_batch(self, prepared: Sequence[Any]) -> Embeddings:
        """Encode prepared images of one shape; the result may live on the device."""

    @classmethod
    def load(
        cls,
        info: GuideInfo,
        name_or_dir: str | Path,
        *,
        device: str,
        precision: Precision,
        prompt: str | None,
    ) -> PixelGuide:
        """Load the guide that ``info`` describes; see `load_guide`."""
        weights = Path(name_or_dir) if info.local else None
        return cls(weights, device=pick_device(device))  # pyright: ignore[reportCallIssue, reportArgumentType]

    @property
    def precision(self) -> str:
        """Of its arithmetic, as its fingerprint says it: a dtype's name, or ``tf32``."""
        return "tf32" if self.tf32 else str(self.dtype).removeprefix("torch.")

    def encode(self, images: Sequence[ImageArray]) -> Embeddings:
        """Encode B uint8 RGB images (H, W, 3) of any sizes.

        Returns:
            CPU float32 ``image`` (B, 17, D), ``joint`` (B, 17, D) and ``answer`` (B, D).

        Raises:
            GuideError: an image is no (H, W, 3) uint8 array or is empty.
        """
        return self.encode_prepared([self.prepare(image) for image in images])

    @property
    def ahead(self) -> int:
        """Batches to start before the first is waited for: a CPU does one thing at a time."""
        return 0 if self.device.type == "cpu" else 1

    def encode_prepared(self, prepared: Sequence[Any]) -> Embeddings:
        """Encode B prepared images; equal shapes share a batch, so no batch holds padding."""
        return self.start(prepared).result()

    def start(self, prepared: Sequence[Any]) -> AsyncCopy:
        """Begin `encode_prepared`: queues the device's work and the copy of its results."""
        if self._network is None:
            raise GuideError(
                f"this copy of the guide {self.name} only prepares images",
                expected="the guide that load_guide returned, in its own process",
            )
        groups: dict[Hashable, list[int]] = {}
        for index, item in enumerate(prepared):
            groups.setdefault(self._shape(item), []).append(index)
        if not groups:
            tokens = torch.zeros(0, 17, self.dim)
            return AsyncCopy(Embeddings(tokens, tokens.clone(), torch.zeros(0, self.dim)))
        with torch.inference_mode(), float32_products(tf32=self.tf32):
            parts = [
                self._encode_batch([prepared[i] for i in indices]) for indices in groups.values()
            ]
            done = parts[0] if len(parts) == 1 else _restore_order(parts, list(groups.values()))
            copy = AsyncCopy(done.to(dtype=torch.float32))
        self._count(len(prepared))
        return copy

    def _about(self, kind: str, licence: str, weights: object, **more: Any) -> dict[str, Any]:
        """What `describe` says of every guide, with ``more`` of this one; JSON values."""
        about = {"name": self.name, "kind": kind, "dim": self.dim, "licence": licence}
        return {**about, "weights": str(weights), **more, "device": str(self.device)}

    def _to_device(self, images: Sequence[ImageArray]) -> Tensor:
        """(B, H, W, 3) uint8 on the device; see `to_device`."""
        return to_device(torch.from_numpy(np.stack(images)), self.device)

    def _count(self, samples: int) -> None:
        self.calls += samples
        record_calls(samples)

    def encode_samples(self, samples: Sequence[Sample]) -> Embeddings:
        """Refused: this guide looks at pictures."""
        raise GuideError(
            f"the guide {self.name} encodes pictures, not recorded severities",
            expected="encode(images)",
        )

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the network."""
        return {**self.__dict__, "_network": None}


def check_image(image: ImageArray) -> ImageArray:
    """Pass ``image`` on if it is a picture.

    Raises:
        GuideError: it is no (H, W, 3) uint8 array, or has no pixel.
    """
    shape, kind = getattr(image, "shape", None), getattr(image, "dtype", None)
    if shape is None or len(shape) != 3 or shape[2] != 3 or str(kind) != "uint8" or 0 in shape:
        raise GuideError(
            "a guide encodes RGB images",
            got=f"{type(image).__name__} of shape {shape} and type {kind}",
            expected="a NumPy array (height, width, 3), uint8, of one pixel at least",
        )
    return image


def _restore_order(parts: Sequence[Embeddings], groups: Sequence[Sequence[int]]) -> Embeddings:
    order = torch.tensor([index for group in groups for index in group])
    back = torch.argsort(order)

    def merge(name: str) -> torch.Tensor:
        merged = torch.cat([getattr(part, name) for part in parts])
        return merged[to_device(back, merged.device)]

    return Embeddings(merge("image"), merge("joint"), merge("answer"))
