"""A student as a guide, and how it lies on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from mmfe_cache.embeddings import ARRAY_NAMES, Embeddings
from mmfe_cache.errors import GuideError
from mmfe_cache.guides.scene.guide import (
    MAX_PIXELS,
    ScenePictures,
    fold_norms,
    halved,
    read_metadata,
    write_weights,
)
from mmfe_cache.guides.student.network import StudentNetwork
from mmfe_cache.samples import ImageArray

FORMAT = "mmfe-student"
"""What the file's metadata must say."""


@dataclass(frozen=True, slots=True)
class Student:
    """A trained student.

    Attributes:
        network: in evaluation mode.
        teacher: the teacher's name.
        fingerprint: the teacher's, flat, as its cache has it (``guide.…``).
        views: those that it learnt at.
        facts: how it was trained and how near it came; JSON values.
    """

    network: StudentNetwork
    teacher: str
    fingerprint: Mapping[str, Any]
    views: tuple[str, ...]
    facts: Mapping[str, Any]


class StudentGuide(ScenePictures):
    """Gives its teacher's embeddings as far as it learnt them; needs no teacher.

    Args:
        weights: a file of ``mmfe guide distill``.
        device: where to run.

    Attributes:
        teacher: the teacher's name.
        teacher_fingerprint: the teacher's, flat, as a cache has it.
        views: those that it learnt at.
        facts: how it was trained and how near it came.

    Raises:
        GuideError: the file is damaged or holds something else.
    """

    def __init__(self, weights: Path, *, device: torch.device) -> None:
        if device.type == "mps":  # its adaptive pooling wants sizes that are multiples of four
            device = torch.device("cpu")
        student, self._digest = load_student(weights)
        network = student.network
        dim = int(network.get_buffer("mean_answer").shape[1])
        self.parameter_count = network.parameter_count
        fold_norms(network)
        network.to(memory_format=torch.channels_last)
        super().__init__(weights.stem, dim, network.to(device), device)
        self._weights = weights
        self.teacher, self.views = student.teacher, student.views
        self.teacher_fingerprint, self.facts = student.fingerprint, student.facts

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything of this guide that changes its embeddings; and whose student it is."""
        return {
            "guide": "student",
            "weights": self._digest,
            "teacher": {"name": self.teacher, "fingerprint": dict(self.teacher_fingerprint)},
            "views": list(self.views),
            "max_pixels": MAX_PIXELS,
            "dtype": "float32",
        }

    def describe(self) -> Mapping[str, Any]:
        """What a user wants to know of it."""
        return self._about(
            "student",
            "its own",
            self._weights,
            sha256=self._digest,
            teacher=self.teacher,
            views=list(self.views),
            parameters=self.parameter_count,
            facts=dict(self.facts),
        )

    def _encode_batch(self, prepared: Sequence[ImageArray]) -> Embeddings:
        parts = [self._network(pictures) for pictures in self._batches(prepared)]
        kinds: dict[str, Tensor] = {
            name: torch.cat([getattr(part, name) for part in parts]) for name in ARRAY_NAMES
        }
        return Embeddings.of(kinds)


def save_student(student: Student, path: Path) -> str:
    """Write a student; aside first, so that a file is there whole or not at all.

    Returns:
        The file's SHA-256, in hexadecimal.
    """
    metadata = {
        "format": FORMAT,
        "dim": str(student.network.get_buffer("mean_answer").shape[1]),
        "teacher": student.teacher,
        "fingerprint": json.dumps(dict(student.fingerprint), sort_keys=True),
        "views": json.dumps(list(student.views)),
        "facts": json.dumps(dict(student.facts), sort_keys=True),
    }
    return write_weights(path, halved(student.network.state_dict()), metadata)


def load_student(path: Path) -> tuple[Student, str]:
    """Read a student, its norms not yet folded.

    Returns:
        The student and the file's SHA-256.

    Raises:
        GuideError: the file is missing, damaged, or holds something else.
    """
    try:
        content = path.read_bytes()
        student = _parse(content)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as problem:
        raise GuideError(
            "this file holds no student",
            got=f"{path}: {' '.join(str(problem).split())[:300]}",
            expected="a file written by `mmfe guide distill` of this version",
            remedy="mmfe guide distill CACHE --root DIR --out FILE.safetensors",
        ) from problem
    return student, hashlib.sha256(content).hexdigest()


def _parse(content: bytes) -> Student:
    # float16 on disk is exact in float32: what is kept is what is computed with.
    state = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in load_tensors(content).items()
    }
    about = read_metadata(content)
    return Student(
        StudentNetwork.from_state(state).eval().requires_grad_(False),
        about["teacher"],
        json.loads(about["fingerprint"]),
        tuple(json.loads(about["views"])),
        json.loads(about["facts"]),
    )
