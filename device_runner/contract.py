"""What the parts of a manifest must be to each other; `manifest.py` checks each part alone.

A manifest can be well typed and still lie: a crop that is not the model's input size, three means
for one channel, an int8 input without a scale. Each rule below is one line of a table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from device_runner.errors import BundleError
from device_runner.manifest import FLAT_NAME, MANIFEST_NAME, Input, Manifest, Preprocess, Tensor

LABELS_NAME = "labels.txt"
GOLDEN_NAME = "golden.npz"
CODES = {"int8": (-128, 127), "uint8": (0, 255)}


def check(manifest: Manifest) -> None:
    """Refuse a manifest whose parts contradict each other.

    Raises:
        BundleError: names the first rule that does not hold.
    """
    for holds, why in rules(manifest):
        if not holds:
            raise BundleError(f"{MANIFEST_NAME} contradicts itself", why, "export the bundle again")


def rules(m: Manifest) -> Iterator[tuple[bool, str]]:
    """Every rule as (does it hold, what it would mean if not)."""
    names = [file.name for file in m.files]
    yield len(set(names)) == len(names), "files names a file twice"
    for name in names:
        yield bool(FLAT_NAME.fullmatch(name)) and name != MANIFEST_NAME, f"files names {name!r}, not a flat file name"
    for name in (m.model, LABELS_NAME, GOLDEN_NAME):
        yield name in names, f"files does not list {name!r}"
    yield from quantization("input", m.input)
    yield from grey_levels(m.input)
    yield from quantization("output", m.output)
    yield math.isfinite(m.output.kernel_spread or 0.0), f"output.kernel_spread is {m.output.kernel_spread}"
    yield bool(m.labels), "labels is empty"
    yield m.output.shape == (1, len(m.labels)), f"output.shape is {m.output.shape} for {len(m.labels)} labels"
    yield from preprocessing(m.preprocess, m.input)


def quantization(where: str, t: Tensor) -> Iterator[tuple[bool, str]]:
    """A quantized tensor has a scale and a zero point that its dtype can hold; a float one has neither."""
    if t.dtype == "float32":
        yield t.scale is None and t.zero_point is None, f"{where} is float32 but has a scale or zero point"
        return
    low, high = CODES[t.dtype]
    good_scale = t.scale is not None and math.isfinite(t.scale) and t.scale > 0
    yield good_scale, f"{where}.scale is {t.scale}; {t.dtype} needs one above 0"
    good_zero = t.zero_point is not None and low <= t.zero_point <= high
    yield good_zero, f"{where}.zero_point is {t.zero_point}; {t.dtype} needs one in {low}..{high}"


def grey_levels(spec: Input) -> Iterator[tuple[bool, str]]:
    """An input of pixels has one code per grey level."""
    if spec.values == "pixels":
        yield spec.dtype in CODES, f"input.values is pixels, and its dtype is {spec.dtype}"
        codes, wanted = (spec.scale, spec.zero_point), (1.0, CODES[spec.dtype][0])
        yield codes == wanted, f"input has scale and zero point {codes}; pixels have {wanted}"


def preprocessing(p: Preprocess, spec: Input) -> Iterator[tuple[bool, str]]:
    """Preprocessing must end in exactly the image the model takes."""
    channels = 1 if p.color == "L" else 3
    height, width = p.crop or p.size
    image = (height, width, channels) if spec.layout == "NHWC" else (channels, height, width)
    yield spec.shape == (1, *image), f"input.shape is {spec.shape}, preprocessing gives {(1, *image)}"
    for name, values in (("mean", p.mean), ("std", p.std)):
        yield len(values) == channels, f"preprocess.{name} has {len(values)} values for {channels} channels"
        yield all(map(math.isfinite, values)), f"preprocess.{name} is not finite"
    yield min(p.std) > 0, f"preprocess.std is {p.std}; each must be above 0"
    if p.resize == "shorter":
        yield p.size[0] == p.size[1], f"preprocess.size is {p.size}; resizing the shorter side takes one number twice"
        yield p.crop is not None, "preprocess.crop is missing; resizing the shorter side alone fixes no shape"
