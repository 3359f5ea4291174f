"""Triton kernels for the network's Transformer blocks, which move each map as seldom as can be.

`block` has a block's equations and the kernel for each, `tiles` what kernels share; every other
file is one operation, forward and backward. They need a CUDA GPU and Triton, which PyTorch's CUDA
builds for Linux bring along; nothing here is imported before `block` is.
"""

from __future__ import annotations

from importlib.util import find_spec

from mmfe_cache.errors import UsageError

_REMEDY = "--set train.kernels=torch trains without them: the same network and the same checkpoints"


def check_kernels(accelerator: str) -> None:
    """Refuse the kernels where they cannot run.

    Args:
        accelerator: ``"cuda"`` or another one.

    Raises:
        UsageError: no CUDA GPU, or no Triton.
    """
    if accelerator != "cuda":
        raise UsageError(
            "train.kernels=triton needs a CUDA GPU",
            got=f"the device {accelerator}",
            expected="cuda",
            remedy=_REMEDY,
        )
    if find_spec("triton") is None:
        raise UsageError(
            "train.kernels=triton needs Triton",
            got="no package triton in this environment",
            expected="a build of PyTorch for CUDA on Linux, which brings it along",
            remedy=_REMEDY,
        )
