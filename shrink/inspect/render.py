"""An inspection as text: the truth label first, then what is float and why, then the ops."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from shrink.inspect.ops import Contract, OpRecord, Port
from shrink.inspect.reasons import left_out
from shrink.inspect.truth import Inspection, delegated_share


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
        share = f", {_percent(delegated_share(found))} of multiply-accumulates"
        rows.append(("partitions", f"{truth.delegate_partitions} ({truth.delegate}){share}"))
    if found.opset is not None:
        rows.append(("op set", str(found.opset)))
    if found.old_runtime:
        rows.append(("old boards", str(found.old_runtime).replace(": ", ":; ", 1).replace("; ", f"\n{'':17}")))
    rows += [("note", note) for note in found.notes]
    return "\n".join(f"{word:14} {text}" for word, text in rows)


def _port(port: Port) -> str:
    offset = "" if not port.zero_point else f" {'-' if port.zero_point > 0 else '+'} {abs(port.zero_point)}"
    scale = "" if port.scale is None else f"  real = (code{offset}) * {port.scale:.6g}"
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
    head = ["op", "computes in", "weights", "delegated", "count", "macs"]
    rows = [[*k, str(counts[k]), _percent(macs[k] / total)] for k in keys]
    used = [i for i in range(len(head)) if any(row[i] for row in rows)]  # no file of ONNX has delegates
    return table([head[i] for i in used], [[row[i] for i in used] for row in rows])


def _left_out(found: Inspection) -> str:
    """Ops that the delegate did not take, by reason."""
    total = found.truth.macs or 1
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for record in found.records:
        if record.delegated is False:
            groups[record.op, left_out(record)].append(record.macs)
    ordered = sorted(groups.items(), key=lambda item: (-sum(item[1]), item[0]))
    rows = [[op, str(len(macs)), _percent(sum(macs) / total), why] for (op, why), macs in ordered]
    return table(["not delegated", "count", "macs", "because"], rows)


def text(found: Inspection) -> str:
    """The whole inspection for a terminal, without colours."""
    parts = [_label(found), _contract(found.contract)]
    if found.truth.leftovers:
        rows = [[f.op, str(f.count), _percent(f.mac_share), f.reason] for f in found.truth.leftovers]
        parts.append(table(["in float", "count", "macs", "because"], rows))
    if found.truth.undelegated_ops:
        parts.append(_left_out(found))
    return "\n\n".join([*parts, _ops(found.records)])
