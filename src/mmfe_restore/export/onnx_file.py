"""A restorer, with its guide where that is `scene`, as one ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfe_cache.embeddings import NUM_TOKENS, TOKEN_SLICES
from mmfe_cache.errors import ModelError, UsageError
from mmfe_cache.io import write_file
from mmfe_restore.export.graph import OPSET, Graph, Value
from mmfe_restore.export.restorer_graph import weights_of, write_restorer
from mmfe_restore.export.scene_graph import write_scene, write_view

if TYPE_CHECKING:
    from mmfe_restore.export.files import Parts
    from mmfe_restore.model import Restorer

FORMAT = "mmfe-onnx-1"
"""What the file's metadata says under ``format``; raised when an older reader would go wrong."""


def write_onnx(
    path: Path, parts: Parts, facts: Mapping[str, str], *, static: tuple[int, int] | None = None
) -> tuple[str, ...]:
    """Write ``parts`` as one file that needs nothing of mmfe to run.

    Args:
        path: where to.
        parts: the network and its guide.
        facts: kept in the file's metadata.
        static: (H, W) that the file takes alone; None lets it take any.

    Returns:
        The names of the file's inputs: ``image`` (N, 3, H, W) in [0, 1], and where the guide is not
        inside, the embeddings that the network reads. The output, ``restored``, has the image's
        shape.

    Raises:
        UsageError: onnx is not installed.
        ModelError: the network is too large for one file.
    """
    try:
        import onnx
        from onnx import helper
    except ImportError:
        raise UsageError(
            "writing ONNX needs onnx, which is not installed", remedy="pip install onnx"
        ) from None

    graph = Graph()
    embeddings, inputs = _guidance(graph, parts)
    write_restorer(graph, parts.restorer, "image", *embeddings)
    graph.nodes[-1].output[0] = "restored"  # the last operator's output is the restorer's
    height, width = static or ("height", "width")
    shape = ["batch", 3, height, width]
    float_type = onnx.TensorProto.FLOAT
    image = helper.make_tensor_value_info("image", float_type, shape)
    out = helper.make_tensor_value_info("restored", float_type, shape)
    constants = [
        onnx.numpy_helper.from_array(array, name) for name, array in graph.constants.items()
    ]
    whole = helper.make_graph(
        graph.nodes,
        "mmfe",
        [image, *(helper.make_tensor_value_info(n, float_type, s) for n, s in inputs.items())],
        [out],
        constants,
    )
    model = helper.make_model(
        whole,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="mmfe",
        producer_version=facts.get("mmfe", ""),
        ir_version=9,  # of OPSET's own release: older engines refuse a later one
    )
    helper.set_model_props(model, {"format": FORMAT, **facts})
    try:
        onnx.checker.check_model(model)
        content = model.SerializeToString()
    except ValueError as problem:  # protobuf holds no more than 2 GiB
        raise ModelError(
            "the network is too large for one ONNX file",
            got=str(problem),
            expected="below 2 GiB",
            remedy="export to .safetensors or .pt2",
        ) from problem
    write_file(path, content)
    return ("image", *inputs)


def _guidance(
    graph: Graph, parts: Parts
) -> tuple[tuple[Value | None, Value | None, Value | None], dict[str, list[Any]]]:
    """The embeddings (image, joint, answer), and the shapes of those that the file asks for."""
    restorer, reads = parts.restorer, parts.restorer.config.reads
    dim = restorer.config.guidance_dim
    found: dict[str, Value] = {}
    inputs: dict[str, list[Any]] = {}
    if parts.guide is not None:
        window = TOKEN_SLICES[parts.guide.tokens]
        picture = write_view(graph, "image", parts.guide.view)
        image, joint, answer = write_scene(graph, parts.guide.network, picture)
        if window != slice(0, NUM_TOKENS):
            image, joint = (
                graph.slice(one, 1, window.start, window.stop) for one in (image, joint)
            )
        found = {"image": image, "joint": joint, "answer": answer}
    elif parts.null_guidance:
        found = _null(graph, restorer)
    else:
        for name in reads:
            value = f"e_{name}"
            inputs[value] = ["batch", dim] if name == "answer" else ["batch", "tokens", dim]
            found[name] = value
    kept = {name: value if name in reads else None for name, value in found.items()}
    return (kept.get("image"), kept.get("joint"), kept.get("answer")), inputs


def _null(graph: Graph, restorer: Restorer) -> dict[str, Value]:
    """The learned vectors that stand for a guide, once for each image of a batch."""
    assert restorer.null_guidance is not None
    batch = graph.add("Shape", "image", start=0, end=1)
    found: dict[str, Value] = {}
    for name, vector in restorer.null_guidance.named_parameters():
        rest = [-1] if name == "answer" else [1, -1]
        constant = graph.constant(weights_of(vector).reshape(1, *rest))
        width = graph.integers(*([] if name == "answer" else [1]), len(vector))
        found[name] = graph.add("Expand", constant, graph.join(batch, width, axis=0))
    return found
