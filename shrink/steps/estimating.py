"""What a bundle would take on boards that are not there."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from pathlib import Path

from device_runner.bundle import open_bundle
from shrink.inspect.ops import OpRecord
from shrink.inspect.truth import inspect_bytes
from shrink.roofline.model import Error, Estimate, Work, estimate, leave_one_out, published

ONE_CHANNEL = {9, 25, 49}  # products that an output of a depthwise convolution sums: 3 x 3, 5 x 5, 7 x 7
KINDS = ("dense", "unit_3x3", "depthwise", "once")
ELEMENT_BYTES = {"float32": 4, "float16": 2, "int16": 2}


def estimates(bundle: Path) -> tuple[list[Estimate], Error]:
    """Of every published configuration of the bundle's dtype, and how far off such estimates are."""
    opened = open_bundle(bundle)
    found = inspect_bytes(opened.model, opened.manifest.format)
    data = published()
    error = leave_one_out(data)
    dtype = "int8" if found.truth.int8_mac_share > 0.5 else "fp32"
    return estimate(work_of(found.records), dtype, data, error), error


def work_of(records: Iterable[OpRecord]) -> Work:
    """Sum up the ops of a file."""
    sums = dict.fromkeys(KINDS, 0)
    outputs = ops = 0
    for record in records:
        ops += 1
        if record.macs:
            sums[_kind(record)] += record.macs
            outputs += prod(record.output_shape)
    return Work(**sums, outputs=outputs, ops=ops)


def _kind(record: OpRecord) -> str:
    """The term of the model that its multiply-accumulates belong to."""
    elements = record.weight_bytes // ELEMENT_BYTES.get(record.weight_dtype or "", 1)
    if record.macs == elements:  # each weight serves one place, as in a classifier's last layer
        return "once"
    if record.unit_3x3:
        return "unit_3x3"
    return "depthwise" if record.macs / max(prod(record.output_shape), 1) in ONE_CHANNEL else "dense"
