"""Names inside an .onnx file, and what else only a debugger reads."""

from __future__ import annotations

from itertools import count

import onnx

from shrink.export.names import INPUT_NAME, OUTPUT_NAME

CODERS = ("QuantizeLinear", "DequantizeLinear")


def name_ends(model: onnx.ModelProto) -> None:
    """Give input and output the names that all bundles have, and drop what only a debugger reads."""
    ends = {model.graph.input[0].name: INPUT_NAME, model.graph.output[0].name: OUTPUT_NAME}
    inner = {name: f"inner_{name}" for name in ends.values()}  # a weight may have that name already
    names = inner | ends
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        node.doc_string = ""
        del node.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.value_info[:]


def number_values(model: onnx.ModelProto) -> None:
    """Keep the names of what layers give, and number all that lies between them, in place.

    A file of codes has three values to each of a float file, and a constant or two with each: their names would be a
    fortieth of a small file.
    """
    if any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        return  # a graph within the graph reads names of this one
    ends = {value.name for value in (*model.graph.input, *model.graph.output)}
    kept = ends | {name for node in model.graph.node if node.op_type not in CODERS for name in node.output}
    made = [tensor.name for tensor in model.graph.initializer]
    made += [name for node in model.graph.node for name in node.output if name not in kept]
    numbers = (number for number in map(str, count()) if number not in kept)
    names = {name: name for name in (*kept, "")} | dict(zip(made, numbers, strict=False))
    for tensor in model.graph.initializer:
        tensor.name = names[tensor.name]
    for node in model.graph.node:
        node.input[:], node.output[:] = ([names[name] for name in side] for side in (node.input, node.output))
        node.name = ""  # its output tells as much
