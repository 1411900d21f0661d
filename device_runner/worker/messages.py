"""What a model says of a frame, and of itself. Without numpy: the runner's own process needs none."""

from __future__ import annotations

import msgspec

from device_runner.frames import Kind


class Look(msgspec.Struct, frozen=True, array_like=True):
    """What a frame looks like, whatever is in it. Of the pixels that the model sees."""

    mean: float  # grey level, 0..255
    spread: float  # standard deviation of the grey levels
    digest: bytes  # of the pixels: equal only for the very same picture
    thumbnail: bytes  # mean grey level of TILES x TILES tiles


class Request(msgspec.Struct, frozen=True, array_like=True):
    """A frame that lies in the slot."""

    kind: Kind
    size: tuple[int, int]  # as `Frame.size`
    length: int  # bytes of the frame
    slot: int  # bytes of the slot


class Seen(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The model's answer on one frame."""

    confidences: tuple[float, ...]  # in the order of the labels; empty if nothing moved and the model was not asked
    look: Look
    prepare_ms: float  # decoding and preprocessing
    model_ms: float  # the engine alone


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The model is loaded and gave its golden answers."""

    sha256: str  # of the bundle's manifest
    engine: str  # name and version
    golden: int  # images that were replayed


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is to do."""

    bundle: str
    sha256: str  # that it must have: the one that was verified and is trusted
    engine: str | None
    threads: int
    motion: float
    slot: int = -1  # descriptor of the memory with the frame
    requests: int = -1  # descriptor to read from
    replies: int = -1  # descriptor to write to
