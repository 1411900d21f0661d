"""What the runner is told to do: one strict TOML file, read into frozen values.

Every key has its unit in its name or comment. An unknown key, a wrong type and a value out of range are errors of
three lines; what the values must be to each other is in `contradictions.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Name = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9_-]{0,31}$")]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Seconds = Annotated[float, msgspec.Meta(gt=0.0, le=86400.0)]
Votes = Annotated[int, msgspec.Meta(ge=1, le=100)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all parts: immutable, unknown keys refused."""


class Source(Part, frozen=True, kw_only=True):
    """Where frames come from; `sources/grammar.py` lists what `url` may be."""

    url: str
    size: tuple[int, int] | None = None  # width, height of raw RGB frames; only for raw:-
    transport: Literal["tcp", "udp"] = "tcp"  # of RTSP; tcp loses nothing, a few old cameras know only udp
    stall_s: Seconds = 5.0  # a live source without a frame for so long is stalled, and started anew
    retry_max_s: Seconds = 30.0  # longest pause before another try
    fps: Annotated[float, msgspec.Meta(gt=0, le=240)] | None = None  # at most so many frames a second are looked at
    frozen_s: Seconds = 10.0  # the very same picture for so long: the camera is frozen
    covered_s: Seconds = 5.0  # a black, white or even picture for so long: the camera is covered
    motion: Annotated[float, msgspec.Meta(ge=0, le=255)] = 0.0  # skip frames that changed less, of 255; 0: skip none


class Rule(Part, frozen=True, kw_only=True):
    """When to act; `rules.py` says exactly how it is applied."""

    name: Name
    label: str
    min_confidence: Share  # a frame votes yes at this confidence or above
    min_margin: Share = 0.0  # and if its confidence is at least so far above that of every other label
    k: Votes = 1  # so many yes votes
    n: Votes = 1  # among the last n frames
    within_s: Seconds = 10.0  # votes older than this do not count
    release_below: Share | None = None  # fires again only after a frame below this; else min_confidence
    cooldown_s: Annotated[float, msgspec.Meta(ge=0, le=86400)] = 0.0  # between two fires
    max_age_ms: Annotated[float, msgspec.Meta(gt=0, le=60000)] = 1000.0  # an older frame decides nothing
    hours: tuple[str, ...] = ()  # of local time, such as "mon-fri 07:00-19:00"; outside them it decides nothing
    action: Name | None = None  # None: only recorded


class Action(Part, frozen=True, kw_only=True):
    """What to do when a rule fires. A program, an MQTT topic or a web server."""

    name: Name
    delivery: Literal["unlock", "alert"]  # unlock: at most once, now or never; alert: at least once, kept on disk
    exec: tuple[str, ...] | None = None  # program and arguments; {rule}, {label}, {confidence}, {id} are filled in
    mqtt: Name | None = None  # last part of the topic
    webhook: str | None = None  # http or https; gets a POST of JSON
    token_file: str | None = None  # of the webhook: sent as a bearer token
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=30)] = 2.0  # a program that runs longer is killed
    expiry_s: Annotated[float, msgspec.Meta(gt=0, le=2)] = 2.0  # an unlock later than this after the frame is dropped


class Mqtt(Part, frozen=True, kw_only=True):
    """A broker. Nothing is subscribed to unless `commands` is set."""

    host: str
    port: Port = 1883
    tls: bool = False
    ca_file: str | None = None
    username: str | None = None
    password_file: str | None = None  # never in this file
    prefix: Name = "device_runner"
    keepalive_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 30
    discovery: bool = False  # announce to Home Assistant
    commands: bool = False  # take arm and disarm from PREFIX/DEVICE/set


class Http(Part, frozen=True, kw_only=True):
    """Metrics and health."""

    host: str = "127.0.0.1"
    port: Port = 9108


class Review(Part, frozen=True, kw_only=True):
    """Keep frames that the model is unsure of. Pictures of people may end up there: off unless asked for."""

    below: Share = 0.6
    max_bytes: Annotated[int, msgspec.Meta(gt=0)] = 64 << 20
    min_gap_s: Seconds = 60.0  # at most one frame in this time


class Heat(Part, frozen=True, kw_only=True):
    """Look at fewer frames while the device is hot."""

    limit_c: Annotated[float, msgspec.Meta(ge=30, le=110)] = 80.0  # above it the rate is halved, step by step
    resume_c: Annotated[float, msgspec.Meta(ge=20, le=109)] = 72.0  # below it the rate is doubled, step by step
    sysfs: str = "/sys"


class Trial(Part, frozen=True, kw_only=True):
    """When a new model of the store may take over."""

    frames: Annotated[int, msgspec.Meta(ge=1)] = 500  # it must answer so many frames beside the old model
    max_p90_ms: Annotated[float, msgspec.Meta(gt=0)] | None = None  # of the model alone; None: 3 times the old one's
    max_disagreement: Share = 0.3  # share of frames where the two name different labels


class Config(Part, frozen=True, kw_only=True):
    """The whole file. Either `bundle` or `store` says where the model is."""

    source: Source
    bundle: str | None = None  # a directory or zip
    store: str | None = None  # a store made by `device_runner install`
    device: Name = "camera"  # names this device in topics and metrics
    dry_run: bool = True  # record what would be done, and do nothing
    state: str | None = None  # directory for audit, spool and review; None: nothing is kept on disk
    audit_max_bytes: Annotated[int, msgspec.Meta(ge=4096)] = 8 << 20
    audit_every: bool = False  # record every frame, not only what changes
    spool_max_bytes: Annotated[int, msgspec.Meta(ge=4096)] = 4 << 20
    engine: Literal["litert", "tflite_runtime", "onnxruntime"] | None = None
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    isolation: Literal["process", "inline"] = "process"
    deadline_s: Seconds = 5.0  # a model that takes longer for one frame is stopped and started anew
    max_restarts: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5  # in a minute; then the runner gives up
    trusted_keys: str | None = None  # an ssh allowed_signers file; with it an unsigned bundle is refused
    kind: Name | None = None  # kind of this device; a release for another kind is refused
    rule: tuple[Rule, ...] = ()
    action: tuple[Action, ...] = ()
    mqtt: Mqtt | None = None
    http: Http | None = None
    review: Review | None = None
    heat: Heat | None = None
    trial: Trial = Trial()
