"""What the XNNPACK delegate took of a .tflite file, asked of the runtime that loads it.

After `allocate_tensors` the runtime lists the nodes of the file and then one DELEGATE node per partition,
with the tensors that enter and leave it. A node of the file is inside a partition exactly when it lies on the
way back from what leaves to what enters. A node that nothing reads lies on no way; there the runtime gives no
memory to results that live inside a partition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from shrink.errors import RequestError
from shrink.inspect.ops import printable

DELEGATE = "XNNPACK"
UNRESOLVED = "unresolved custom op"
FIX = "fetch or export it again; the op named above, if any, is the one to change"


@dataclass(frozen=True, slots=True)
class Partitions:
    """How the delegate cut a graph."""

    count: int
    delegated: frozenset[int]  # index of every node that runs inside a partition


def _members(wanted: Iterable[int], enters: frozenset[int], producer: Mapping[int, int],
             inputs: Mapping[int, tuple[int, ...]]) -> set[int]:  # fmt: skip
    """Nodes on the way back from the tensors `wanted` to the tensors that enter."""
    found: set[int] = set()
    queue = list(wanted)
    while queue:
        tensor = queue.pop()
        node = producer.get(tensor)
        if tensor in enters or node is None or node in found:
            continue
        found.add(node)
        queue.extend(inputs[node])
    return found


def _has_memory(interpreter: Any, tensor: int) -> bool:
    try:
        interpreter.get_tensor(tensor)
    except ValueError:
        return False
    return True


def _unread(details: list[Any], leaves: Iterable[int]) -> Iterable[tuple[int, int]]:
    """(node, its first output) of nodes whose results nothing reads."""
    read = {int(i) for d in details for i in d["inputs"]} | set(leaves)
    for detail in details:
        outputs = [int(o) for o in detail["outputs"]]
        if outputs and not read & set(outputs):
            yield int(detail["index"]), outputs[0]


def _cut(interpreter: Any, nodes: int) -> Partitions:
    details = interpreter._get_ops_details()
    original, delegates = details[:nodes], [d for d in details[nodes:] if d["op_name"] == "DELEGATE"]
    producer = {int(t): int(d["index"]) for d in original for t in d["outputs"]}
    inputs = {int(d["index"]): tuple(int(i) for i in d["inputs"]) for d in original}
    found: set[int] = set()
    for part in delegates:
        found |= _members(map(int, part["outputs"]), frozenset(map(int, part["inputs"])), producer, inputs)
    if delegates:
        leaves = [int(d["index"]) for d in interpreter.get_output_details()]
        found |= {node for node, out in _unread(original, leaves) if not _has_memory(interpreter, out)}
    return Partitions(len(delegates), frozenset(found))


def of(data: bytes, nodes: int, name: str) -> Partitions | None:
    """How the runtime's default delegate cuts a file of `nodes` nodes; None: the file needs ops that it does not have.

    Raises:
        RequestError: the runtime refuses the file.
    """
    try:
        interpreter = Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
        return _cut(interpreter, nodes)
    except (RuntimeError, ValueError) as error:
        if UNRESOLVED in str(error):
            return None
        raise RequestError(f"{name} is refused by ai-edge-litert", printable(str(error)), FIX) from error
