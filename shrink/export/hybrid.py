"""Int8 exactly where the graph says so.

Left alone, the converter takes the dequantized value that a float op reads for its codes: it packs the weights of
layers that the graph left in float, and makes products of two activations integer, which XNNPACK does not take, or
which no runtime opens. In its strict mode it does none of this, but leaves a dequantization between 8-bit weights
and a layer that reads floats. That one is taken out here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from shrink.export.flatbuffer import pack, parse
from shrink.export.ports import code_of, opcode

VERSIONS = {schema.BuiltinOperator.CONV_2D: 5, schema.BuiltinOperator.FULLY_CONNECTED: 12}
"""Ops that may read 8-bit weights beside a float input, and the version from which they do so per channel."""


@contextmanager
def strict() -> Iterator[None]:
    """Let the converter keep to the quantize and dequantize nodes; litert-torch has no setting for it."""
    from litert_torch._convert import litert_converter

    library: Any = litert_converter.converter_api_ext
    make = library.ConvertToTFLConfig

    def make_strict() -> Any:
        config = make()
        config.strict_qdq_mode = True
        return config

    library.ConvertToTFLConfig = make_strict
    try:
        yield
    finally:
        library.ConvertToTFLConfig = make


def read_codes(model: bytes) -> bytes:
    """Let every layer that reads dequantized weights read their codes, in a file written in strict mode."""
    tree = parse(model)
    (graph,) = tree.subgraphs
    codes = {
        op.outputs[0]: op.inputs[0]
        for op in graph.operators
        if code_of(tree, op) == schema.BuiltinOperator.DEQUANTIZE
        and tree.buffers[graph.tensors[op.inputs[0]].buffer].data is not None
    }
    for op in graph.operators:
        builtin = code_of(tree, op)
        if builtin in VERSIONS and op.inputs[1] in codes:
            op.inputs[1] = codes[op.inputs[1]]
            opcode(tree, builtin, VERSIONS[builtin])
    read = {index for op in graph.operators for index in op.inputs}
    graph.operators = [op for op in graph.operators if op.outputs[0] in read or op.outputs[0] in graph.outputs]
    return pack(tree)
