"""Arrays in one file, a plain .npz: the same arrays give the same bytes, and nothing in it is trusted when read."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold


@dataclass(frozen=True, slots=True)
class Kind:
    """What an array must be."""

    dtypes: tuple[str, ...]
    rank: int


def pack(arrays: Mapping[str, NDArray[Any]], *, compress: bool = False) -> bytes:
    """The file, its members in the order given, with fixed dates."""
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, array in arrays.items():
            member, info = BytesIO(), zipfile.ZipInfo(f"{name}.npy", EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            npy.write_array(member, array, version=(1, 0), allow_pickle=False)
            archive.writestr(info, member.getvalue())
    return out.getvalue()


def unpack(data: bytes, kinds: Mapping[str, Kind], *, compressed_to: int = 0) -> dict[str, NDArray[Any]]:
    """Read the file; no pickles, and exactly the arrays that are expected, in that order.

    Args:
        kinds: name -> what it must be.
        compressed_to: bytes that compressed members may have in all once they are unpacked; 0: none is compressed.

    Raises:
        ValueError: the file is not what `pack` writes of such arrays.
    """
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            _check_members(archive, kinds, compressed_to)
            return {name: _array(name, kind, archive.read(f"{name}.npy")) for name, kind in kinds.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # encrypted ones are RuntimeErrors
        raise ValueError(str(error) or "it ends too early") from error


def _check_members(archive: zipfile.ZipFile, kinds: Mapping[str, Kind], compressed_to: int) -> None:
    found, expected = archive.infolist(), [f"{name}.npy" for name in kinds]
    known = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) if compressed_to else (zipfile.ZIP_STORED,)
    if [member.filename for member in found] != expected or any(m.compress_type not in known for m in found):
        raise ValueError(f"it must hold {', '.join(expected)}{'' if compressed_to else ', uncompressed'}")
    if compressed_to and sum(member.file_size for member in found) > compressed_to:
        raise ValueError(f"its arrays would take more than {compressed_to // 1_000_000} MB")


def _array(name: str, kind: Kind, member: bytes) -> NDArray[Any]:
    """One .npy, without trusting its header: the bytes behind it must be exactly the array it claims."""
    stream = BytesIO(member)
    if npy.read_magic(stream) != (1, 0):
        raise ValueError(f"{name} is of another .npy version")
    shape, fortran, dtype = npy.read_array_header_1_0(stream)
    if fortran or dtype.name not in kind.dtypes or len(shape) != kind.rank:
        raise ValueError(f"{name} is {dtype.name} of shape {shape}")
    content = member[stream.tell() :]
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{name} of shape {shape} has {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(shape)
