"""From a user's module to one graph: functional ATen ops, fixed shapes, batch norms folded.

Everything after loading works on this graph. Its nodes are `placeholder` (one image input),
`get_attr` (weights and constants), `call_function` (ATen overloads and `getitem`) and one `output`.
Every node carries `meta["shape"]` and `meta["dtype"]`, and `meta["layer"]`: the path of the module
it came from, for messages that a user can act on.
"""

from __future__ import annotations

import torch
from torch import fx, nn

from shrink.errors import CaptureError
from shrink.graph.clean import clean
from shrink.graph.shapes import annotate_shapes


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
    example = torch.zeros(input_shape)
    try:
        with torch.no_grad():
            program = torch.export.export(module, (example,), strict=False).run_decompositions({})
    except Exception as error:  # torch.export raises many unrelated types; this is the border
        raise _explain(error) from error
    unlifted = program.module(check_guards=False)
    graph_module = fx.GraphModule(unlifted, unlifted.graph).eval()  # an ordinary module: it may be copied and called
    for node in graph_module.graph.nodes:
        node.meta["layer"] = layer_of(node)
    clean(graph_module)
    annotate_shapes(graph_module, example)
    outputs = graph_module.graph.output_node().args[0]
    if isinstance(outputs, fx.Node):
        graph_module.graph.output_node().args = ((outputs,),)
    elif len(outputs) != 1:
        raise CaptureError(
            f"the model gives {len(outputs)} outputs",
            "a classifier with one tensor of scores, shape (1, classes), is expected",
            "wrap the model in a module whose forward returns the logits only",
        )
    return graph_module


def layer_of(node: fx.Node) -> str:
    """Path of the module that `node` was traced from, such as `blocks.0.mlp.fc1`; "" if unknown."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return max(paths, key=len, default="") if paths else ""


def _explain(error: Exception) -> CaptureError:
    """Name the line of the user's code that torch.export could not follow."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    where = next((line for line in lines if line.startswith('File "') and "/torch/" not in line), "")
    return CaptureError(
        f"the model cannot be captured: {type(error).__name__}",
        f"{first[:300]}{' at ' + where if where else ''}",
        "make the forward free of branches and shapes that depend on pixel values",
    )
