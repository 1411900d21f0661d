"""Which format a file has, by its first bytes: a name proves nothing."""

from __future__ import annotations

from pathlib import PurePath

from shrink.errors import RequestError, nearest
from shrink.inspect.ops import Format

SUFFIXES: dict[str, Format] = {".tflite": "tflite", ".onnx": "onnx"}

MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (4, b"TFL3", "a TFLite model"),
    (4, b"ORTM", "an ONNX Runtime model (.ort)"),
    (0, b"\x89HDF\r\n", "an HDF5 file, as Keras writes"),
    (0, b"PK\x03\x04", "a zip archive, as PyTorch and Keras write"),
    (0, b"\x80\x02", "a Python pickle"),
    (0, b"\x80\x03", "a Python pickle"),
    (0, b"\x80\x04", "a Python pickle"),
    (0, b"\x80\x05", "a Python pickle"),
    (8, b'{"', "a safetensors file"),
    (0, b"GGUF", "a GGUF model"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"\x7fELF", "a program"),
    (0, b"version https://git-lfs", "a Git LFS pointer: the model itself was not downloaded"),
    (0, b"<", "a web page or XML"),
    (0, b"{", "JSON"),
)
"""(offset, bytes, what has them)."""

ONNX_FIELDS = b"\x12\x1a\x22\x2a\x32\x3a\x42"
"""First byte of the field that can follow an ONNX file's version."""

WORDS: dict[Format, str] = {"tflite": "a TFLite model", "onnx": "an ONNX model"}


def of_name(name: str) -> Format:
    """The format that a file's name promises."""
    suffix = PurePath(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise RequestError(f"{name} is not a model file that can be inspected", f"its name ends in '{suffix}'",
                           nearest(suffix, SUFFIXES))  # fmt: skip
    return SUFFIXES[suffix]


def looks_like(data: bytes) -> str | None:
    """What a file is by its first bytes, in words; None: unknown."""
    if not data:
        return "an empty file"
    for offset, magic, words in MAGIC:
        if data[offset : offset + len(magic)] == magic:
            return words
    is_onnx = len(data) > 2 and data[0] == 0x08 and data[1] < 0x20 and data[2] in ONNX_FIELDS
    return WORDS["onnx"] if is_onnx else None


def require(data: bytes, fmt: Format, name: str) -> None:
    """Refuse bytes that are not of the format they are said to be."""
    found = looks_like(data)
    if found == WORDS[fmt] or (found is None and fmt == "onnx"):  # protobuf has no magic: its parser decides
        return
    why = f"its first bytes are those of {found}" if found else "it does not have the mark 'TFL3' at byte 4"
    rename = {text: f"call it .{other}" for other, text in WORDS.items()}
    raise RequestError(f"{name} is not {WORDS[fmt]}", why, rename.get(found or "", "give the model file itself"))
