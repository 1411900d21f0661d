"""From a user's module to one graph: functional ATen ops, fixed shapes, batch norms folded.

Everything after loading works on this graph. Its nodes are `placeholder` (one image input),
`get_attr` (weights and constants), `call_function` (ATen overloads and `getitem`) and one `output`.
Every node carries `meta["shape"]` and `meta["dtype"]`, and `meta["layer"]`: the path of the module
it came from, for messages that a user can act on.
"""

from __future__ import annotations

import linecache
import traceback
from inspect import getattr_static
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.fx.graph import CodeGen

from shrink.errors import CaptureError
from shrink.graph.clean import clean
from shrink.graph.functional import functional
from shrink.graph.shapes import annotate_shapes

TORCH = str(Path(torch.__file__).parent)


def capture(module: nn.Module, input_shape: tuple[int, ...]) -> fx.GraphModule:
    """Capture `module` in inference mode as a clean graph.

    Args:
        module: the trained model; put into eval mode. Not changed otherwise.
        input_shape: shape of the image input with its batch dimension, (1, C, H, W).

    Returns:
        A graph module that computes the same function of one float32 input of that shape.

    Raises:
        CaptureError: the model's control flow or shapes depend on the pixels, or it has not
            exactly one tensor as output.
    """
    module.eval()
    _check_python(module)
    example = torch.zeros(input_shape)
    try:
        with torch.no_grad():
            graph_module = functional(torch.export.export(module, (example,), strict=False))
    except Exception as error:  # torch.export raises many unrelated types; this is the border
        raise _explain(error, module) from error
    _plain_call(graph_module)
    for node in graph_module.graph.nodes:
        node.meta["layer"] = layer_of(node)
    _check_shapes(graph_module.graph)
    clean(graph_module)
    annotate_shapes(graph_module, example)
    return graph_module


def _check_python(module: nn.Module) -> None:
    """Refuse compiled parts: torch.export follows Python code only."""
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise CaptureError(
                f"layer {name!r} is TorchScript" if name else "the model is TorchScript",
                "it holds compiled code, which torch.export cannot follow",
                "build it without torch.jit.script or torch.jit.trace, and load its weights from a state_dict",
            )


def _plain_call(graph_module: fx.GraphModule) -> None:
    """Let the graph take one tensor and return one, without torch.export's packing of arguments."""
    graph = graph_module.graph
    graph.set_codegen(CodeGen())
    outputs: Any = graph.output_node().args[0]
    images = [node for node in graph.nodes if node.op == "placeholder"]
    if isinstance(outputs, (tuple, list)) and len(outputs) == 1:
        graph.output_node().args = tuple(outputs)
    if not isinstance(graph.output_node().args[0], fx.Node) or len(images) != 1:
        raise CaptureError(
            f"the model takes {len(images)} inputs and gives {len(tuple(outputs))} outputs",
            "a classifier takes one image and gives one tensor of scores, shape (1, classes)",
            "wrap the model in a module whose forward returns the logits only",
        )
    graph_module.recompile()


def layer_of(node: fx.Node) -> str:
    """Path of the module that `node` was traced from, such as `blocks.0.mlp.fc1`; "" if unknown."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return max(paths, key=len, default="") if paths else ""


def _check_shapes(graph: fx.Graph) -> None:
    """Refuse a value whose shape depends on the image: a mask used as an index, say."""
    moving: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(source in moving for source in node.all_input_nodes):
            moving.add(node)
            if node.meta.get("unbacked_bindings"):
                lines = [line.strip() for line in node.meta.get("stack_trace", "").splitlines()]
                where = next((line for line in reversed(lines) if line.startswith('File "')), "an unknown line")
                raise CaptureError(
                    f"{node.target} in layer {node.meta['layer']!r} gives a shape that depends on pixel values",
                    f"the file for the device needs fixed shapes; at {where}",
                    "select with torch.where or a product with the mask, which keep the shape",
                )


def _explain(error: Exception, module: nn.Module) -> CaptureError:
    """Name the layer and the line of the user's code that torch.export could not follow."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    where, what = _place(error, module)
    return CaptureError(
        f"the model cannot be captured: {what or type(error).__name__}",
        f"{first[:300]}{where}",
        "make the forward free of branches and shapes that depend on pixel values"
        if "data-dependent" in first
        else "make the model run on one image, a tensor of shape (1, C, H, W), in eval mode",
    )


def _place(error: Exception, module: nn.Module) -> tuple[str, str]:
    """The deepest line of the user's own code in the traceback: where it is, and its layer and text; or nothing."""
    layers = {id(part): name for name, part in module.named_modules()}
    forwards = (getattr(getattr_static(type(part), "forward"), "__code__", None) for part in module.modules())
    files = {code.co_filename for code in forwards if code and not code.co_filename.startswith(TORCH)}
    for frame, number in reversed(list(traceback.walk_tb(error.__traceback__))):
        code = frame.f_code
        if code.co_filename in files:
            layer = layers.get(id(frame.f_locals.get("self")))
            text = linecache.getline(code.co_filename, number).strip()
            where = f' at File "{code.co_filename}", line {number}, in {code.co_name}'
            return where, f"`{text}`" + (f" in layer {layer!r}" if layer else "")
    return "", ""
