"""A scheme with numbers: everything needed to write the quantized graph, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shrink.quantize.codes import Affine, affine
from shrink.quantize.ranges import Range, join
from shrink.quantize.scheme import Scheme


@dataclass(frozen=True, slots=True)
class Plan:
    """What is quantized and how. Both file formats are printed from the same plan.

    Attributes:
        scheme: which nodes compute on codes.
        codes: node name -> scale and zero point of its output, for every name in `scheme.values`.
    """

    scheme: Scheme
    codes: Mapping[str, Affine]


def make_plan(scheme: Scheme, ranges: Mapping[str, Range]) -> Plan:
    """Turn observed ranges into codes; tied values share theirs."""
    common = join({name: ranges[name] for name in scheme.values}, scheme.tied)
    return Plan(scheme, {name: affine(found) for name, found in common.items()})
