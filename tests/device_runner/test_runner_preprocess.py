"""The runner's preprocessing against torchvision's own transforms, and against the definition of quantization."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps
from runner_bundles import PREPROCESS, photo

from device_runner import preprocess
from device_runner.errors import BundleError, ImageError
from device_runner.manifest import Input, Preprocess

SCHEMAS = torch.library.Library("torchvision", "DEF")  # torchvision's wheel expects these two of a CPU torch
SCHEMAS.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
SCHEMAS.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from torchvision import transforms  # noqa: E402

ROOT = Path(__file__).parents[2]
MODES = ("L", "RGB", "RGBA", "LA", "P", "CMYK", "1", "I;16")
LAYOUTS = {"NHWC": (1, 4, 6, 3), "NCHW": (1, 3, 4, 6)}


def random_image(mode: str, width: int, height: int, orientation: int) -> Image.Image:
    """Noise of any mode, with an EXIF orientation."""
    rng = np.random.default_rng(width * 1000 + height)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (height, width), dtype=np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA").convert(mode)
    image.getexif()[preprocess.EXIF_ORIENTATION] = orientation
    return image


def by_torchvision(image: Image.Image, p: Preprocess) -> torch.Tensor:
    """The same steps, each done by torchvision or Pillow."""
    image = ImageOps.exif_transpose(image) if p.exif else image
    image = image.convert("L" if p.color == "L" else "RGB")
    size = p.size[0] if p.resize == "shorter" else p.size
    mode = transforms.InterpolationMode(p.filter)
    image = transforms.Resize(size, mode)(image)
    image = transforms.CenterCrop(p.crop)(image) if p.crop else image
    tensor = transforms.ToTensor()(image)
    tensor = tensor.flip(0) if p.color == "BGR" else tensor
    return transforms.Normalize(p.mean, p.std)(tensor)


@st.composite
def preprocesses(draw: st.DrawFn) -> Preprocess:
    color = draw(st.sampled_from(["RGB", "BGR", "L"]))
    resize = draw(st.sampled_from(["shorter", "exact"]))
    side = st.integers(1, 40)
    height, width = draw(side), draw(side)
    n = 1 if color == "L" else 3
    return Preprocess(
        color=color,
        exif=draw(st.booleans()),
        resize=resize,
        size=(height, height) if resize == "shorter" else (height, width),
        filter=draw(st.sampled_from(list(preprocess.FILTERS))),
        crop=draw(st.none() | st.tuples(side, side)),  # larger than the image too: then it is padded
        mean=draw(st.tuples(*[st.floats(-1, 1)] * n)),
        std=draw(st.tuples(*[st.floats(0.01, 2)] * n)),
    )


@settings(max_examples=300, deadline=None)
@given(preprocesses(), st.sampled_from(MODES), st.integers(1, 90), st.integers(1, 90), st.integers(0, 9))
def test_it_is_torchvision_to_the_last_bit(p: Preprocess, mode: str, width: int, height: int, orientation: int):
    image = random_image(mode, width, height, orientation)
    got = preprocess.normalize(preprocess.pixels(image, p), p)
    want = by_torchvision(image, p).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("size", [(224, 224), (256, 341), (333, 500), (4000, 3000), (3, 100), (97, 96)])
def test_the_usual_imagenet_recipe_on_camera_sizes(size: tuple[int, int]):
    p = msgspec.structs.replace(PREPROCESS, size=(256, 256), crop=(224, 224), filter="bicubic")
    image = random_image("RGB", *size, 1)
    got = preprocess.normalize(preprocess.pixels(image, p), p)
    np.testing.assert_array_equal(got, by_torchvision(image, p).permute(1, 2, 0).numpy())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_exif_of_a_file_is_applied_as_pillow_applies_it(format: str, orientation: int):
    image = random_image("RGB", 7, 5, orientation)
    file = BytesIO()
    image.save(file, format, exif=image.getexif())
    decoded = preprocess.decode(file.getvalue())
    want = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    np.testing.assert_array_equal(np.asarray(preprocess.upright(decoded)), want)


def test_an_unreadable_exif_leaves_the_image_as_it_lies():
    image = preprocess.decode(photo(0))
    image.info["exif"] = b"Exif\x00\x00not a TIFF"
    assert preprocess.upright(image) is image


def spec(dtype: str, layout: str, scale: float | None = None, zero: int | None = None) -> Input:
    return Input(name="x", shape=LAYOUTS[layout], dtype=dtype, layout=layout, scale=scale, zero_point=zero)


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(np.float32, (4, 6, 3), elements=st.floats(-1e3, 1e3, width=32)),
    st.floats(2**-10, 4, width=32),
    st.sampled_from([("int8", -128, 127), ("uint8", 0, 255)]),
    st.data(),
)
@example(np.full((4, 6, 3), 0.5, np.float32), 1.0, ("int8", -128, 127), None)
def test_quantization_is_the_definition_in_exact_arithmetic(x, scale, dtype, data):
    """Codes are those of exact fractions, up to the one code that a tie in float32 division may cost."""
    name, low, high = dtype
    zero = data.draw(st.integers(low, high)) if data else 1
    got = preprocess.encode(x, spec(name, "NHWC", scale, zero))
    assert got.dtype == name and got.shape == (1, 4, 6, 3)
    for value, code in zip(x.flat, got.flat, strict=True):
        exact = Fraction(float(value)) / Fraction(scale)
        want = min(max(round(exact) + zero, low), high)  # round() of a Fraction is half to even
        near_tie = abs(exact - (exact.numerator // exact.denominator) - Fraction(1, 2)) <= abs(exact) * Fraction(
            1, 2**23
        )
        assert code == want or (near_tie and abs(int(code) - want) == 1)


@pytest.mark.parametrize("zero", [0, 1, -3])
def test_ties_round_to_even_before_the_zero_point(zero: int):
    x = np.zeros((4, 6, 3), np.float32)
    x.flat[:6] = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5]
    codes = preprocess.encode(x, spec("int8", "NHWC", 1.0, zero))
    assert (codes.flat[:6].astype(int) - zero).tolist() == [0, 2, 2, 0, -2, -2]


def test_layout_and_batch():
    x = np.arange(2 * 4 * 6 * 3, dtype=np.float32).reshape(2, 4, 6, 3)
    nchw = preprocess.encode(x, spec("float32", "NCHW"))
    assert nchw.shape == (2, 3, 4, 6) and nchw.flags.c_contiguous
    assert nchw[1, 2, 3, 5] == x[1, 3, 5, 2]
    np.testing.assert_array_equal(preprocess.encode(x[0], spec("float32", "NHWC")), x[:1])
    with pytest.raises(BundleError, match="the model takes"):
        preprocess.encode(x[:, :3], spec("float32", "NHWC"))


# What must not be decoded.


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size and whose single data chunk is tiny."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 99))]
    body = b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def encoded(format: str) -> bytes:
    return photo(1, format=format)


def jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(encoded("JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def bmp_claiming(width: int, height: int) -> bytes:
    data = bytearray(encoded("BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


REFUSED = {
    "empty": (b"", "cannot be decoded"),
    "text": (b"<svg onload='x'/>" * 9, "cannot be decoded"),
    "gif": (encoded("GIF"), "cannot be decoded"),
    "tiff": (encoded("TIFF"), "cannot be decoded"),
    "webp": (encoded("WEBP"), "cannot be decoded"),
    "truncated jpeg": (encoded("JPEG")[:-200], "cannot be decoded"),
    "truncated png": (encoded("PNG")[:-200], "cannot be decoded"),
    "truncated bmp": (encoded("BMP")[:-200], "cannot be decoded"),
    "png of 26 MP": (png_claiming(5200, 5001), "too large"),
    "png of 100 MP": (png_claiming(10_000, 10_000), "too large"),
    "png of 4 TP": (png_claiming(2_000_000, 2_000_000), "too large"),
    "png without data": (png_claiming(4000, 4000), "cannot be decoded"),
    "png of 0 x n": (png_claiming(0, 100), "cannot be decoded|empty"),
    "jpeg of 4 GP": (jpeg_claiming(65_000, 65_000), "too large"),
    "jpeg of 0 x n": (jpeg_claiming(0, 100), "cannot be decoded|empty"),
    "bmp of 100 MP": (bmp_claiming(10_000, 10_000), "too large"),
    "bmp of 0 x n": (bmp_claiming(0, 100), "cannot be decoded|empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_sound_image_is_refused(name: str):
    data, words = REFUSED[name]
    with pytest.raises(ImageError, match=words) as caught:
        preprocess.decode(data)
    assert len(str(caught.value).splitlines()) == 3


def test_an_image_bomb_costs_no_memory():
    """Pillow warns of the 176 MP this file claims and then makes room for all of them."""
    code = """
import resource, sys
from device_runner import errors, preprocess
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    preprocess.decode(data)
except errors.ImageError as error:
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    sys.exit(0 if grown < 20_000 else f"{grown} KiB")
sys.exit("decoded")
"""
    bomb = png_claiming(16_000, 11_000)
    result = subprocess.run([sys.executable, "-c", code], input=bomb, capture_output=True, cwd=ROOT, timeout=60)
    assert result.returncode == 0, result.stderr


def test_an_elongated_image_cannot_blow_up_by_resizing():
    p = msgspec.structs.replace(PREPROCESS, size=(224, 224), crop=(224, 224))
    with pytest.raises(ImageError, match="too elongated: 1x2000 pixels"):
        preprocess.pixels(Image.new("RGB", (1, 2000)), p)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "BMP"]), st.data())
def test_damaged_files_give_pixels_or_an_image_error(format: str, data: st.DataObject):
    """No other exception, whatever bytes are damaged."""
    file = bytearray(encoded(format))
    for at in data.draw(st.lists(st.integers(0, len(file) - 1), min_size=1, max_size=8)):
        file[at] = data.draw(st.integers(0, 255))
    try:
        image = preprocess.decode(bytes(file))
        preprocess.pixels(image, PREPROCESS)
    except ImageError:
        pass


# --- a model that takes pixels


@given(hnp.arrays(np.uint8, (4, 6, 3)), st.sampled_from(["NHWC", "NCHW"]))
def test_pixels_go_in_as_they_are(image, layout):
    """No normalization: as uint8 the same numbers, as int8 each 128 lower."""
    for dtype, zero in (("uint8", 0), ("int8", -128)):
        taken = msgspec.structs.replace(spec(dtype, layout, 1.0, zero), values="pixels")
        got = preprocess.tensor(image, PREPROCESS, taken)
        assert got.dtype == dtype and got.flags.c_contiguous
        back = got.astype(np.int16) - zero
        assert np.array_equal(back[0] if layout == "NHWC" else back[0].transpose(1, 2, 0), image)
