"""Writing ONNX operators one by one: values are names, constants are NumPy arrays.

Exporters trace a network for a minute and leave what they did not understand; this network is made
of a few operators, so its file is written by hand, in a second, in the form that engines are fast
at. The tests hold it equal to the network.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

OPSET = 20
"""The version of ONNX's operators: the first that has GELU."""

Value: TypeAlias = str
"""A value of the graph: its name."""


class Graph:
    """Operators and constants in the order in which they were asked for.

    Attributes:
        nodes: the operators, as `onnx.NodeProto`.
        constants: name to array.
    """

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._numbers = count()

    def add(self, operator: str, *inputs: Value, **attributes: Any) -> Value:
        """Apply an operator with one output; an empty name leaves an optional input out."""
        from onnx import helper

        out = f"{operator.lower()}_{next(self._numbers)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [out], name=out, **attributes))
        return out

    def constant(self, value: ArrayLike, dtype: Any = np.float32) -> Value:
        """A constant; equal ones are stored once."""
        array = np.ascontiguousarray(np.asarray(value, dtype=dtype))
        array = array.reshape(np.shape(value))  # which a scalar has lost
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = f"constant_{len(self.constants)}"
            self.constants[self._known[key]] = array
        return self._known[key]

    def integers(self, *values: int) -> Value:
        """A constant vector of int64, as axes and sizes are."""
        return self.constant(list(values), np.int64)

    def either(
        self, condition: Value, first: Callable[[], Value], second: Callable[[], Value]
    ) -> Value:
        """What ``first`` writes where ``condition``, a bool, holds, else what ``second`` writes.

        Both give float32 and may use all that was written before; one of them is computed.
        """
        from onnx import TensorProto, helper

        outside, branches = self.nodes, []
        for name, write in (("then_branch", first), ("else_branch", second)):
            self.nodes = []
            result = write()
            given = helper.make_tensor_value_info(result, TensorProto.FLOAT, None)
            branches.append((name, helper.make_graph(self.nodes, name, [], [given])))
        self.nodes = outside
        return self.add("If", condition, **dict(branches))

    # Arithmetic

    def plus(self, a: Value, b: Value | float) -> Value:
        """A + b."""
        return self.add("Add", a, self._operand(b))

    def times(self, a: Value, b: Value | float) -> Value:
        """A · b."""
        return self.add("Mul", a, self._operand(b))

    def minus(self, a: Value, b: Value | float) -> Value:
        """A - b."""
        return self.add("Sub", a, self._operand(b))

    def affine(self, x: Value, scale: ArrayLike, shift: ArrayLike) -> Value:
        """X · scale + shift, with constants."""
        return self.plus(self.times(x, self.constant(scale)), self.constant(shift))

    def linear(self, x: Value, weight: ArrayLike, bias: ArrayLike | None = None) -> Value:
        """X Wᵀ + b over the last axis; ``weight`` is (outputs, inputs), as in torch."""
        out = self.add("MatMul", x, self.constant(np.asarray(weight).T))
        return out if bias is None else self.plus(out, self.constant(bias))

    def conv(
        self,
        x: Value,
        weight: NDArray[Any],
        bias: ArrayLike | None = None,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
    ) -> Value:
        """A convolution of (B, C, H, W); ``weight`` is (C', C / groups, k, k)."""
        inputs = [x, self.constant(weight)]
        if bias is not None:
            inputs.append(self.constant(bias))
        return self.add(
            "Conv",
            *inputs,
            kernel_shape=list(weight.shape[2:]),
            strides=[stride, stride],
            pads=[padding] * 4,
            group=groups,
        )

    # Reductions and shapes

    def mean(self, x: Value, *axes: int, keep: bool = True) -> Value:
        """The mean over ``axes``."""
        return self.add("ReduceMean", x, self.integers(*axes), keepdims=int(keep))

    def total(self, x: Value, *axes: int) -> Value:
        """The sum over ``axes``, which are kept."""
        return self.add("ReduceSum", x, self.integers(*axes), keepdims=1)

    def join(self, *parts: Value, axis: int) -> Value:
        """Concatenate."""
        return self.add("Concat", *parts, axis=axis)

    def reshape(self, x: Value, *sizes: int) -> Value:
        """Reshape; 0 keeps a size, one -1 is worked out."""
        return self.add("Reshape", x, self.integers(*sizes))

    def reshape_like(self, x: Value, like: Value) -> Value:
        """Reshape to the shape of ``like``."""
        return self.add("Reshape", x, self.add("Shape", like))

    def slice(self, x: Value, axis: int, start: int, stop: int) -> Value:
        """x[start:stop] along one axis."""
        limits = (self.integers(one) for one in (start, stop, axis, 1))
        return self.add("Slice", x, *limits)

    def every_other(self, x: Value) -> Value:
        """x[:, :, ::2, ::2]."""
        ends, starts, steps = (self.integers(one, one) for one in (2**62, 0, 2))
        return self.add("Slice", x, starts, ends, self.integers(2, 3), steps)

    def size(self, x: Value, axis: int) -> Value:
        """The size of one axis, a scalar of int64."""
        return self.add("Gather", self.add("Shape", x), self.constant(axis, np.int64))

    def vector(self, *scalars: Value) -> Value:
        """Scalars side by side, (n,)."""
        axis = self.integers(0)
        return self.join(*(self.add("Unsqueeze", one, axis) for one in scalars), axis=0)

    def count_up(self, size: Value) -> Value:
        """0, 1 … size - 1 of int64."""
        zero, one = self.constant(0, np.int64), self.constant(1, np.int64)
        return self.add("Range", zero, size, one)

    def cast(self, x: Value, dtype: Any) -> Value:
        """Another type."""
        from onnx import helper

        return self.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def whole(self, a: Value, operator: str, b: Value | int) -> Value:
        """Arithmetic on int64: ``Add``, ``Sub``, ``Mul``, ``Div``, ``Mod``, ``Min`` or ``Max``."""
        return self.add(operator, a, self.constant(b, np.int64) if isinstance(b, int) else b)

    def _operand(self, value: Value | float) -> Value:
        return value if isinstance(value, str) else self.constant(value)
