"""Imported in a process that nullgpu.c is preloaded into: CUDA tensors without a GPU, watched.

Products, convolutions, attention and Fourier transforms come from libraries that would look at a
real card; here they are shape functions. Values read back are 0. What the host did is counted:

    with Watched() as seen: ...
    seen.pageable, seen.waits, seen.unsettled
"""

import ctypes
import os

import torch
from torch.utils._pytree import tree_leaves, tree_map

_RUNTIME = ctypes.CDLL(os.environ["NULLGPU"])
_NAMES = ("pageable", "waits", "unsettled")
for _name in _NAMES:
    getattr(_RUNTIME, f"nullgpu_{_name}").restype = ctypes.c_long


class Watched:
    """What the host did to the device inside a block.

    Attributes:
        pageable: copies from or to memory that is not page-locked; each makes the host wait.
        waits: how often the host waited for the device.
        unsettled: copies to the host that nobody has waited for at the block's end.
    """

    def __enter__(self):
        self._before = {name: getattr(_RUNTIME, f"nullgpu_{name}")() for name in _NAMES}
        return self

    def __exit__(self, *_):
        self.__dict__ |= self.now()

    def now(self):
        """The counts so far, by name."""
        return {n: getattr(_RUNTIME, f"nullgpu_{n}")() - self._before[n] for n in _NAMES}


def _shape_only(tensor):
    if not isinstance(tensor, torch.Tensor):
        return tensor
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="meta")


def _by_shape(op):
    def run(*args, **kwargs):
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        device = tensors[0].device
        for tensor in tensors:
            if tensor.device != device and tensor.dim():
                raise RuntimeError(f"{op}: tensors on {device} and {tensor.device}")
        _same_dtype(op, tensors)
        if "out" in kwargs:
            return kwargs["out"]
        with torch.no_grad():
            found = op(*tree_map(_shape_only, args), **tree_map(_shape_only, kwargs))
        return tree_map(lambda t: _like(t, device), found)

    return run


def _same_dtype(op, tensors):
    """As a card's libraries refuse it: a product that mixes types, or writes to another type."""
    kinds = {tensor.dtype for tensor in tensors}
    if len(kinds) > 1 and "_dtype" not in str(op) and ".dtype" not in str(op):
        raise RuntimeError(f"{op}: tensors of {' and '.join(sorted(map(str, kinds)))}")


def _like(tensor, device):
    if not isinstance(tensor, torch.Tensor):
        return tensor
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=device)


def _channels_last(*tensors):
    def last(t):
        return t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous()

    chosen = any(t.dim() == 4 and last(t) for t in tensors)
    return torch.channels_last if chosen else torch.contiguous_format


def _convolution(x, weight, padding, stride, dilation, groups, *_):
    assert x.device == weight.device and x.dtype == weight.dtype
    sizes = zip(x.shape[2:], padding, dilation, weight.shape[2:], stride, strict=True)
    side = [(s + 2 * p - d * (k - 1) - 1) // t + 1 for s, p, d, k, t in sizes]
    shape = [x.shape[0], weight.shape[0], *side]
    layout = _channels_last(x, weight)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)


def _convolution_backward(grad, x, weight, bias_sizes, *rest):
    mask, layout = rest[-1], _channels_last(x, weight)

    def like(t):
        return torch.empty(t.shape, dtype=t.dtype, device=t.device, memory_format=layout)

    grad.contiguous(memory_format=layout)  # as cuDNN would have it
    bias = weight.new_empty(bias_sizes) if mask[2] else None
    return like(x) if mask[0] else None, like(weight) if mask[1] else None, bias


def _add_product(out, one, two, **_):
    _same_dtype("addmm_", (out, one, two))
    return out


_LIBRARY = torch.library.Library("aten", "IMPL")
for _name in (
    *("mm", "bmm", "addmm", "baddbmm", "addmv", "dot", "mv"),
    *("_fft_r2c", "_fft_c2r", "_fft_c2c"),
    *(f"_scaled_dot_product_{kind}_attention" for kind in ("cudnn", "flash", "efficient")),
):
    _packet = getattr(torch.ops.aten, _name)
    _LIBRARY.impl(_name, _by_shape(_packet.default), "CUDA")
    for _overload in {"out", "dtype"} & set(_packet.overloads()):
        _LIBRARY.impl(f"{_name}.{_overload}", _by_shape(getattr(_packet, _overload)), "CUDA")
_LIBRARY.impl(
    "cudnn_batch_norm",
    lambda x, *_, **__: (torch.empty_like(x), *(x.new_empty(0) for _ in range(3))),
    "CUDA",
)
_LIBRARY.impl("addmm_", _add_product, "CUDA")
_LIBRARY.impl("cudnn_convolution", _convolution, "CUDA")
_LIBRARY.impl("convolution_backward", _convolution_backward, "CUDA")
# A check of values would fail on the zeros that are read back.
torch._check_tensor_all_with = lambda *_, **__: None
