"""An inspection as text: the truth label first, then what is float and why, then the ops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from shrink.inspect.ops import Contract, OpRecord, Port
from shrink.inspect.truth import Inspection


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns padded to their longest cell, numbers to the right.

    >>> print(table(["op", "n"], [["ADD", "1"], ["MUL", "12"]]))
    op    n
    ADD   1
    MUL  12
    """
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    numeric = [all(line[i][:1].isdigit() or not line[i] for line in lines[1:]) for i in range(len(head))]
    pad = [str.rjust if right else str.ljust for right in numeric]
    return "\n".join("  ".join(pad[i](cell, widths[i]) for i, cell in enumerate(line)).rstrip() for line in lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _label(found: Inspection) -> str:
    truth = found.truth
    rows = [
        ("int8 work", f"{_percent(truth.int8_mac_share)} of {truth.macs:,} multiply-accumulates"),
        ("of it dynamic", f"{_percent(truth.dynamic_mac_share)}, activations quantized at every run"),
        ("int8 weights", f"{_percent(truth.int8_weight_share)} of bytes"),
        ("ops", f"{truth.ops} in a file of {found.size_bytes:,} bytes"),
    ]
    if truth.delegate:
        left = f"; left to the runtime: {', '.join(truth.undelegated_ops)}" if truth.undelegated_ops else ""
        rows.append(("partitions", f"{truth.delegate_partitions} ({truth.delegate}){left}"))
    if found.opset is not None:
        rows.append(("op set", str(found.opset)))
    if found.old_runtime:
        rows.append(("old boards", str(found.old_runtime)))
    rows += [("note", note) for note in found.notes]
    return "\n".join(f"{word:14} {text}" for word, text in rows)


def _port(port: Port) -> str:
    scale = "" if port.scale is None else f"  real = (code - {port.zero_point}) * {port.scale:.6g}"
    return f"{port.name}  {list(port.shape)}  {port.dtype}{scale}"


def _contract(contract: Contract) -> str:
    sides = [("input", contract.inputs), ("output", contract.outputs)]
    return "\n".join(f"{word:14} {_port(port)}" for word, ports in sides for port in ports)


def _delegated(record: OpRecord) -> str:
    return {None: "", True: "yes", False: "no"}[record.delegated]


def _ops(records: Sequence[OpRecord]) -> str:
    """Ops of a kind on one line: same name, arithmetic, weights and place."""
    total = sum(r.macs for r in records) or 1
    counts: Counter[tuple[str, str, str, str]] = Counter()
    macs: Counter[tuple[str, str, str, str]] = Counter()
    for r in records:
        key = (r.op, r.compute, r.weight_dtype or "", _delegated(r))
        counts[key] += 1
        macs[key] += r.macs
    keys = sorted(counts, key=lambda k: (-macs[k], -counts[k], k))
    return table(["op", "computes in", "weights", "delegated", "count", "macs"],
                 [[*k, str(counts[k]), _percent(macs[k] / total)] for k in keys])  # fmt: skip


def text(found: Inspection) -> str:
    """The whole inspection for a terminal, without colours."""
    parts = [_label(found), _contract(found.contract)]
    if found.truth.leftovers:
        rows = [[f.op, str(f.count), _percent(f.mac_share), f.reason] for f in found.truth.leftovers]
        parts.append(table(["in float", "count", "macs", "because"], rows))
    return "\n\n".join([*parts, _ops(found.records)])
