"""Which guides there are. Imports neither torch nor transformers: `guide_dim` must be cheap."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

from mmfe_cache.errors import GuideError, UsageError
from mmfe_cache.guides.timm_models import TIMM, TimmName, find_encoder
from mmfe_cache.parsing import parse_json

ToyKind = Literal[
    "qwen2.5-vl",
    "fastvlm",
    "qwen2-vl",
    "qwen3-vl",
    "idefics3",
    "llava-onevision",
    "internvl",
    "gemma3",
    "paligemma",
]
"""What ``mmfe guide make-tiny --kind`` takes; the first two have guides of their own."""

TOY_KINDS: tuple[ToyKind, ...] = get_args(ToyKind)
"""The kinds of checkpoint that `mmfe_cache.guides.toy.make_tiny` writes."""

PUBLISHED = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json")
"""The processor's and the tokenizer's files of a published checkpoint."""

_QWEN = ("qwen2.5-vl", "mmfe_cache.guides.qwen:QwenGuide")
_FASTVLM = ("fastvlm", "mmfe_cache.guides.fastvlm:FastVlmGuide")
_IMAGE_TEXT = ("image-text", "mmfe_cache.guides.image_text:ImageTextGuide")
_TIMM = ("timm", "mmfe_cache.guides.timm_encoder:TimmGuide")
_SCENE = ("scene", "mmfe_cache.guides.scene.guide:SceneGuide")
_PROMPT = ("prompt", "mmfe_cache.guides.prompt:PromptGuide")
_STUDENT = ("student", "mmfe_cache.guides.student.guide:StudentGuide")
_ORACLE = ("oracle", "mmfe_cache.guides.oracle:OracleGuide")


@dataclass(frozen=True, slots=True)
class GuideInfo:
    """What is known of a guide before it is loaded.

    Attributes:
        name: its name.
        kind: its kind, as fingerprints and `mmfe guide list` name it.
        implementation: the class that loads it, as ``"module:class"``: imported when it is needed.
        dim: D, the width of its embeddings.
        description: one line.
        licence: of its weights.
        repository: where its weights are published; None where none are needed.
        revision: the published commit that is meant; None takes what lies in the local cache.
        reads: what it looks at; only pixels can be had of a photograph.
        local: whether it is a directory or file of the user's, and no named guide.
        download: bytes of its published weights; None where unknown or none are needed.
    """

    name: str
    kind: str
    implementation: str
    dim: int
    description: str
    licence: str
    repository: str | None = None
    revision: str | None = None
    reads: Literal["pixels", "severities"] = "pixels"
    local: bool = False
    download: int | None = None

    @property
    def takes_prompt(self) -> bool:
        """Whether it is an MLLM, which is asked a question and reads a sequence of tokens."""
        return self.kind in (_QWEN[0], _FASTVLM[0], _IMAGE_TEXT[0])

    @property
    def how_to_get(self) -> str:
        """The command that fetches the weights."""
        if self.repository is None:
            return "nothing to fetch: it comes with mmfe"
        return f"hf download {self.repository}"


GUIDES: dict[str, GuideInfo] = {
    info.name: info
    for info in (
        GuideInfo(
            "qwen2.5-vl-3b",
            *_QWEN,
            2048,
            "Qwen2.5-VL-3B-Instruct, the paper's guide and the default",
            "Qwen Research (non-commercial)",
            "Qwen/Qwen2.5-VL-3B-Instruct",
            download=7_509_245_952,
        ),
        GuideInfo(
            "qwen2.5-vl-7b",
            *_QWEN,
            3584,
            "Qwen2.5-VL-7B-Instruct",
            "Apache-2.0",
            "Qwen/Qwen2.5-VL-7B-Instruct",
            download=16_584_333_312,
        ),
        GuideInfo(
            "fastvlm-0.5b",
            *_FASTVLM,
            896,
            "FastVLM-0.5B, converted to the fast_vlm classes of transformers",
            "Apple (research only)",
            "KamilaMila/FastVLM-0.5B",
        ),
        GuideInfo(
            "fastvlm-1.5b",
            *_FASTVLM,
            1536,
            "FastVLM-1.5B, converted to the fast_vlm classes of transformers",
            "Apple (research only)",
            "KamilaMila/FastVLM-1.5B",
        ),
        GuideInfo(
            "scene",
            *_SCENE,
            128,
            "a small network trained on degradation composition and severity; no download",
            "Apache-2.0",
        ),
        GuideInfo(
            "prompt",
            *_PROMPT,
            128,
            "the discrete guide of Table 5c: scene, snapped to one of twelve classes; no download",
            "Apache-2.0",
        ),
        GuideInfo(
            "oracle",
            *_ORACLE,
            64,
            "the recorded severities of synthetic samples: the ceiling in experiments",
            "Apache-2.0",
            reads="severities",
        ),
    )
}
"""Every named guide; a local directory in Hugging Face format is one too."""


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of guide.

    Attributes:
        family: its name, as fingerprints have it.
        spelled: what ``--guide`` is given.
        description: one line.
        needs: what must be there beside mmfe.
    """

    family: str
    spelled: str
    description: str
    needs: str


FAMILIES: dict[str, Family] = {
    one.family: one
    for one in (
        Family(
            "qwen2.5-vl",
            "qwen2.5-vl-3b, qwen2.5-vl-7b, DIR",
            "Qwen2.5-VL: the paper's guide",
            "its checkpoint",
        ),
        Family("fastvlm", "fastvlm-0.5b, fastvlm-1.5b, DIR", "FastVLM", "its checkpoint; timm"),
        Family(
            "image-text",
            "DIR",
            "any other image-text model that transformers knows: Qwen2-VL, Qwen3-VL, SmolVLM, "
            "LLaVA-OneVision, InternVL, Gemma 3, PaliGemma and others",
            "its checkpoint",
        ),
        Family(
            "timm",
            "timm:MODEL",
            "any vision encoder of timm: a good eye without language",
            "timm; its weights, or a file of them (--weights)",
        ),
        Family(
            "scene",
            "scene, FILE of `mmfe guide train`",
            "a small network that sees composition and severity",
            "nothing",
        ),
        Family(
            "prompt",
            "prompt, FILE of `mmfe guide train --kind prompt`",
            "one of twelve classes and nothing more: the paper's discrete rival",
            "nothing",
        ),
        Family(
            "student",
            "FILE of `mmfe guide distill`",
            "a small network that gives another guide's embeddings: no MLLM to restore with",
            "a teacher's cache to learn from",
        ),
        Family("oracle", "oracle", "the recorded severities: a ceiling", "a synthetic set"),
    )
}
"""Every kind of guide."""

MODEL_TYPES = {"qwen2_5_vl": _QWEN, "fast_vlm": _FASTVLM}
"""``model_type`` in a checkpoint's config.json to the kind of guide and the class that loads it."""

_FORMATS = {"mmfe-scene": _SCENE, "mmfe-prompt": _PROMPT, "mmfe-student": _STUDENT}
"""``format`` in the metadata of a guide's file to the kind of guide and the class that loads it."""


def find_guide(name_or_dir: str | Path) -> GuideInfo:
    """Look a guide up by name, directory in Hugging Face format, or file of ``mmfe guide``.

    Raises:
        UsageError: it is none of these.
        GuideError: the directory or file holds no checkpoint that a guide can use, or timm is not
            installed.
    """
    text = str(name_or_dir)
    if text in GUIDES:
        return GUIDES[text]
    if text.startswith(TIMM):
        return _from_timm(TimmName.parse(text))
    path = Path(name_or_dir)
    if path.is_dir():
        return _from_directory(path)
    if path.suffix == ".safetensors" and path.is_file():
        return _from_file(path)
    raise UsageError(
        "unknown guide",
        got=repr(str(name_or_dir)),
        expected=f"one of {', '.join(GUIDES)}, timm:MODEL, a directory in Hugging Face format, "
        "or a file written by `mmfe guide train` or `mmfe guide distill`",
        remedy="mmfe guide list",
    )


def with_weights(name_or_dir: str | Path, weights: str | Path | None) -> str | Path:
    """The name of a timm encoder with the file of its weights in it; any other without.

    Raises:
        UsageError: weights are given to another kind of guide, or twice.
    """
    if weights is None:
        return name_or_dir
    if not str(name_or_dir).startswith(TIMM) or TimmName.parse(str(name_or_dir)).weights:
        raise UsageError(
            "weights of their own go with timm encoders only, and once",
            got=f"{name_or_dir} and {weights}",
            expected="timm:MODEL and a file of its weights, or a directory or file as the guide",
        )
    return f"{name_or_dir},weights={weights}"


def guide_dim(name_or_dir: str | Path) -> int:
    """D, the width of a guide's embeddings, without loading it.

    Raises:
        UsageError: there is no such guide.
        GuideError: the directory or file holds no checkpoint that a guide can use.
    """
    return find_guide(name_or_dir).dim


def read_config(directory: Path) -> dict[str, Any]:
    """Read a checkpoint's ``config.json``.

    Raises:
        GuideError: it is missing or not a JSON object.
    """
    path = directory / "config.json"
    try:
        config = parse_json(path.read_bytes(), path)
    except FileNotFoundError as problem:
        raise GuideError(
            "this directory holds no checkpoint",
            got=f"no config.json in {directory}",
            expected="an image-text model's checkpoint in Hugging Face format",
            remedy=f"mmfe guide make-tiny {directory}   (for a toy one)",
        ) from problem
    except (json.JSONDecodeError, UnicodeDecodeError) as problem:
        raise GuideError(
            "the checkpoint's config.json cannot be read",
            got=f"{path}: {problem}",
            remedy="copy or download it again",
        ) from problem
    if not isinstance(config, dict):
        raise GuideError(
            "the checkpoint's config.json is no JSON object",
            got=path,
            remedy="copy or download it again",
        )
    return config


def _from_timm(name: TimmName) -> GuideInfo:
    found = find_encoder(name.model)  # only timm knows how wide its models are
    return GuideInfo(
        name.plain,
        *_TIMM,
        found.dim(name.pool),
        f"the vision encoder {found.model} of timm",
        found.licence,
        repository=found.repository if name.weights is None else None,
        local=name.weights is not None,
    )


def _from_directory(path: Path) -> GuideInfo:
    config = read_config(path)
    kind = MODEL_TYPES.get(str(config.get("model_type")), _IMAGE_TEXT)
    # A configuration that does not speak of pictures is a language model's.
    pictures = any(key.startswith(("vision", "image_token", "visual", "img")) for key in config)
    if kind is _IMAGE_TEXT and not pictures:
        raise GuideError(
            "this checkpoint's model takes no images, so it is no guide",
            got=f"model_type {config.get('model_type')!r} in {path / 'config.json'}",
            expected="an image-text model: Qwen2.5-VL, FastVLM, or one that transformers' "
            "AutoModelForImageTextToText loads",
        )
    # Qwen's published files keep the text model's width at the top, newer ones in text_config.
    text = config.get("text_config")
    inner: Mapping[str, Any] = text if isinstance(text, dict) else {}
    width = inner.get("hidden_size", config.get("hidden_size"))
    if width is None and kind is _IMAGE_TEXT:
        # Left to transformers' defaults, which only transformers knows.
        width = import_module(_IMAGE_TEXT[1].partition(":")[0]).text_width(path)
    if not isinstance(width, int) or width < 1:
        raise GuideError(
            "the checkpoint's config.json names no hidden_size",
            got=path,
            expected="the width of its language model, a positive integer",
        )
    return GuideInfo(
        path.resolve().name, *kind, width, f"a local checkpoint: {path}", "its own", local=True
    )


def _from_file(path: Path) -> GuideInfo:
    """Read the header of a safetensors file: its length in 8 bytes, then JSON."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length < 1 << 24 else {}
        metadata = dict(header.get("__metadata__", {}))
    except (OSError, ValueError, TypeError, AttributeError) as problem:
        raise GuideError(
            "this file cannot be read as safetensors",
            got=path,
            expected="a file written by `mmfe guide train` or `mmfe guide distill`",
        ) from problem
    kind, width = _FORMATS.get(str(metadata.get("format"))), str(metadata.get("dim"))
    if kind is None or not width.isdecimal():
        raise GuideError(
            "this file holds no guide",
            got=path,
            expected="a file written by `mmfe guide train` or `mmfe guide distill`",
        )
    return GuideInfo(
        path.stem, *kind, int(width), f"a {kind[0]} guide: {path}", "its own", local=True
    )


def check_toy(out: Path, kind: str, files: Path | None) -> None:
    """Refuse what `mmfe_cache.guides.toy.make_tiny` cannot make, without torch.

    Raises:
        UsageError: ``kind`` is unknown, ``out`` is taken, or ``files`` does not go with ``kind``.
        GuideError: ``files`` is not complete.
    """
    if kind not in TOY_KINDS:
        raise UsageError("unknown kind of toy", got=repr(kind), expected=", ".join(TOY_KINDS))
    if files is not None and kind != "qwen2.5-vl":
        raise UsageError("--files goes with --kind qwen2.5-vl only", got=f"--kind {kind}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            "the directory for the toy checkpoint is taken", got=out, expected="a new directory"
        )
    if files is None:
        return
    missing = [name for name in (*PUBLISHED, "config.json") if not (files / name).is_file()]
    if missing:
        raise GuideError(
            "the published files are not complete",
            got=f"{files} without {', '.join(missing)}",
            expected=", ".join((*PUBLISHED, "config.json")),
        )
