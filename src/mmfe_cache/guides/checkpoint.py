"""Loading a checkpoint in Hugging Face format: its processor, its chat template, its network."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import AutoProcessor
from transformers.utils import logging as transformers_logging

from mmfe_cache.errors import GuideError


def conversation(processor: Any, prompt: str, directory: Path) -> str:
    """The text that a model reads, by its checkpoint's own template; one image token.

    Args:
        processor: the checkpoint's.
        prompt: the question.
        directory: the checkpoint, for the message.

    Raises:
        GuideError: the template is not valid.
    """
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}
    try:
        text = processor.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    except (TemplateError, TypeError, ValueError) as problem:
        raise GuideError(
            "the checkpoint's chat template cannot be used",
            got=f"{directory}: {type(problem).__name__}: {problem}",
            expected="the template as it was published",
            remedy="fetch the checkpoint's chat_template.jinja or tokenizer_config.json again",
        ) from problem
    return str(text)


def load_processor(directory: Path, kind: type[Any], *, needs_template: bool = True) -> Any:
    """Load a checkpoint's own processor.

    Args:
        directory: the checkpoint.
        kind: what it must be.
        needs_template: whether it must have a chat template.

    Raises:
        GuideError: its files are missing, damaged or of another class.
    """
    try:
        with quiet_transformers():
            processor = AutoProcessor.from_pretrained(
                directory, local_files_only=True, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError, ImportError, TypeError) as problem:
        raise GuideError(
            "the checkpoint's processor or tokenizer cannot be loaded",
            got=f"{directory}: {_first_line(problem)}",
            expected="preprocessor_config.json, tokenizer.json and tokenizer_config.json",
        ) from problem
    if not isinstance(processor, kind):
        raise GuideError(
            "the checkpoint has a processor of the wrong class",
            got=type(processor).__name__,
            expected=kind.__name__,
        )
    if needs_template and getattr(processor, "chat_template", None) is None:
        raise GuideError(
            "the checkpoint has no chat template",
            got=directory,
            expected="chat_template.jinja, or a chat_template in tokenizer_config.json",
            remedy="fetch the checkpoint again",
        )
    return processor


def load_network(
    directory: Path,
    kind: type[Any],
    dtype: torch.dtype,
    device: torch.device,
    *,
    attention: str | None = "sdpa",
) -> Any:
    """Load a checkpoint's model, ready to run; a base model's class leaves its ``lm_head`` out.

    Args:
        directory: the checkpoint.
        kind: the model's class, or one that picks it.
        dtype: of the weights.
        device: where they go.
        attention: how it attends; None leaves it to the model, not all of which know every way.

    Raises:
        GuideError: it is of the wrong class, tensors are missing or have a wrong shape.
    """
    try:
        with quiet_transformers():
            network, report = kind.from_pretrained(
                directory,
                dtype=dtype,
                local_files_only=True,
                output_loading_info=True,
                attn_implementation=attention,
                ignore_mismatched_sizes=True,  # they are reported, and refused below by name
            )
    except ImportError as problem:
        raise GuideError(
            "the checkpoint's model needs a package that is not installed",
            got=f"{directory}: {_first_line(problem)}",
            remedy="for timm, in mmfe's checkout: pip install -c constraints.txt -e '.[timm]'",
        ) from problem
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as problem:
        raise GuideError(
            "the checkpoint's weights cannot be loaded",
            got=f"{directory}: {_first_line(problem)}",
            expected=f"a whole {kind.__name__}",
        ) from problem
    lacking = sorted(report["missing_keys"]) + sorted(k[0] for k in report["mismatched_keys"])
    if lacking:
        raise GuideError(
            "the checkpoint lacks tensors that the model needs",
            got=f"{len(lacking)} missing or misshapen, such as {lacking[0]}",
            expected=f"every tensor of {kind.__name__}",
            remedy="fetch the checkpoint again",
        )
    return network.eval().requires_grad_(False).to(device)


@contextmanager
def quiet_transformers() -> Generator[None, None, None]:
    """Keep transformers' own bars and warnings off stderr; errors are raised all the same."""
    before, bars = transformers_logging.get_verbosity(), _bars_are_on()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        if bars:
            transformers_logging.enable_progress_bar()


def _bars_are_on() -> bool:
    return bool(transformers_logging.is_progress_bar_enabled())


def _first_line(problem: BaseException) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]
