"""The truth label: what a file is, summed up from its ops."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from device_runner.manifest import Leftover, TruthLabel
from shrink.errors import RequestError
from shrink.inspect import kind
from shrink.inspect.old_runtime import Compatibility, min_runtime
from shrink.inspect.ops import EIGHT_BITS, FLOAT, INT8, Contract, Format, OpRecord, Reading
from shrink.inspect.reasons import reason

READERS: dict[Format, str] = {"tflite": "shrink.inspect.tflite", "onnx": "shrink.inspect.onnx"}
"""format -> module with `read(data, name) -> Reading`; imported on use, for each brings its runtime."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """All that is known of a file."""

    format: Format
    size_bytes: int
    truth: TruthLabel
    contract: Contract
    records: tuple[OpRecord, ...]
    old_runtime: Compatibility | None  # None for onnx
    notes: tuple[str, ...]  # what could not be read or counted
    opset: int | None = None  # of an .onnx file


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def delegated_share(found: Inspection) -> float:
    """Share of the multiply-accumulates that the delegate runs; without any, of the ops. 0 without a delegate."""
    weights = [(r.macs if found.truth.macs else 1, r.delegated) for r in found.records]
    return _share(sum(w for w, taken in weights if taken), sum(w for w, _ in weights))


def leftovers(records: Iterable[OpRecord], fmt: Format) -> tuple[Leftover, ...]:
    """Float work in a file that has int8, by op and reason; nothing for a file without int8."""
    records = tuple(records)
    if not any(r.compute in INT8 or r.weight_dtype in EIGHT_BITS for r in records):
        return ()
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for record in records:
        if record.compute in FLOAT:
            groups[record.op, reason(record, fmt)].append(record.macs)
    total = sum(r.macs for r in records)
    found = [Leftover(op=op, count=len(macs), mac_share=_share(sum(macs), total), reason=why)
             for (op, why), macs in groups.items()]  # fmt: skip
    return tuple(sorted(found, key=lambda left: (-left.mac_share, -left.count, left.op)))


def label(reading: Reading, fmt: Format) -> TruthLabel:
    """Sum up what a reader found."""
    records = reading.records
    macs = sum(r.macs for r in records)
    weights = sum(r.weight_bytes for r in records)
    return TruthLabel(
        int8_mac_share=_share(sum(r.macs for r in records if r.compute in INT8), macs),
        dynamic_mac_share=_share(sum(r.macs for r in records if r.compute == "int8-dynamic"), macs),
        int8_weight_share=_share(sum(r.weight_bytes for r in records if r.weight_dtype in EIGHT_BITS), weights),
        macs=macs,
        ops=reading.nodes,
        delegate=reading.delegate,
        delegate_partitions=reading.partitions,
        undelegated_ops=tuple(sorted({r.op for r in records if r.delegated is False})),
        leftovers=leftovers(records, fmt),
        input_dtype=reading.contract.inputs[0].dtype if reading.contract.inputs else "",
        output_dtype=reading.contract.outputs[0].dtype if reading.contract.outputs else "",
    )


def inspect_bytes(data: bytes, fmt: Format, name: str = "the model") -> Inspection:
    """Inspect a file in this process: for files of our own making; `guard.check` is for any other.

    Args:
        data: the whole file.
        fmt: what it is said to be.
        name: what to call it in errors.

    Raises:
        RequestError: it is damaged, of another format, or refused by the runtime.
    """
    reading: Reading = import_module(READERS[fmt]).read(data, name)
    old = min_runtime(reading.records) if fmt == "tflite" else None
    return Inspection(
        fmt, len(data), label(reading, fmt), reading.contract, reading.records, old, reading.notes, reading.opset
    )


def inspect_file(path: Path) -> Inspection:
    """`inspect_bytes` of a file whose name says its format."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path} cannot be read", str(error.strerror), "give the path of a model file") from error
    return inspect_bytes(data, kind.of_name(path.name), path.name)
