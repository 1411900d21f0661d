"""What a user may ask of `shrink export`: frozen, typed, strict. A TOML file says all that the flags say."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from device_runner.manifest import Preprocess
from shrink.data.sources import BUILTIN
from shrink.errors import RecipeError, nearest

Measure = Literal["macs", "parameters", "latency"]
Score = Literal["error", "taylor", "magnitude", "random"]

EXAMPLES: Mapping[str, tuple[str, str]] = {
    "model": ("text that names one", 'model = "timm:resnet18"'),
    "data": ("text that names it", 'data = "photos/"'),
    "targets": ("a list of names", 'targets = ["tflite-int8", "onnx-int8"]'),
    "checkpoint": ("the path of a file", 'checkpoint = "weights.safetensors"'),
    "calibrate": ("a number of images, or a folder or CSV of them", "calibrate = 256"),
    "quantize": ("fast, balanced or thorough", 'quantize = "balanced"'),
    "input": ("float32, uint8 or int8", 'input = "uint8"'),
    "layout": ("nhwc or nchw", 'layout = "nhwc"'),
    "max_drop": ("a number of points of top-1", "max_drop = 1.0"),
    "seed": ("a whole number of at least 0", "seed = 0"),
    "prune": ("how many times fewer multiply-accumulates are wanted", 'prune = "1.5x"'),
    "prune_params": ("the share of parameters to remove", 'prune_params = "50%"'),
    "prune_to_latency": (
        "the share of the time that may be left, above 0 and below 1",
        "prune_to_latency = 0.6",
    ),
    "prune_score": ("error, taylor, magnitude or random", 'prune_score = "error"'),
    "keep": ("a list of layers, whose channels all stay", 'keep = ["layer1", "head"]'),
    "tune": ("a table", "[tune]"),
    "tune.epochs": ("a number of passes over the training images, 0 to 10000", "epochs = 3"),
    "tune.qat": ("a number of passes with 8-bit rounding in it, 0 to 10000", "qat = 1"),
    "tune.qat_rate": ("the highest learning rate of these, above 0", "qat_rate = 1e-5"),
    "tune.loss": ("kl, dist or mse", 'loss = "kl"'),
    "tune.temperature": ("a number above 0 that softens the classes", "temperature = 2.0"),
    "tune.match": ("the weight of the relations between tokens, 0 to 1000", "match = 10.0"),
    "tune.labels": ("the share of the loss that looks at labels, 0 to 1", "labels = 0.3"),
    "tune.balance": ("true or false", "balance = true"),
    "tune.augment": ("a list of crop, flip, color and mix", 'augment = ["crop", "flip"]'),
    "tune.views": ("a number of augmentations of each image, at least 1", "views = 4"),
    "tune.batch": ("a number of images per step, a multiple of 8", "batch = 64"),
    "tune.accumulate": ("a number of parts that a step is computed in, at least 1", "accumulate = 2"),
    "tune.rate": ("the highest learning rate, above 0", "rate = 3e-4"),
    "tune.precision": ("no, bf16 or fp16", 'precision = "bf16"'),
    "tune.teacher": ("text that names a model", 'teacher = "timm:resnet50"'),
    "tune.teacher_checkpoint": ("the path of a file", 'teacher_checkpoint = "teacher.safetensors"'),
    "resolution": ("the side of the image in pixels, at least 8", "resolution = 192"),
    "preprocess": ("a table", "[preprocess]"),
    "preprocess.color": ("RGB, BGR or L", 'color = "RGB"'),
    "preprocess.exif": ("true or false", "exif = true"),
    "preprocess.resize": ("shorter or exact", 'resize = "shorter"'),
    "preprocess.size": ("height and width in pixels", "size = [256, 256]"),
    "preprocess.filter": ("nearest, box, bilinear, hamming, bicubic or lanczos", 'filter = "bilinear"'),
    "preprocess.crop": ("height and width in pixels", "crop = [224, 224]"),
    "preprocess.mean": ("a number per channel, of pixels in 0 to 1", "mean = [0.485, 0.456, 0.406]"),
    "preprocess.std": ("a number per channel, of pixels in 0 to 1", "std = [0.229, 0.224, 0.225]"),
}
"""Key -> what it takes, and how it is written in a recipe."""

OPTIONAL = ("preprocess.crop",)
"""Keys of `preprocess` that may be left out: TOML has no word for "none"."""


TUNE_RANGES: Mapping[str, tuple[float, float]] = {
    "epochs": (0, 10_000),
    "qat": (0, 10_000),
    "qat_rate": (1e-9, 1e3),
    "temperature": (1e-3, 1e3),
    "match": (0, 1000),
    "labels": (0, 1),
    "views": (1, 10_000),
    "batch": (8, 2**20),
    "accumulate": (1, 2**20),
    "rate": (1e-9, 1e3),
}
"""Key of `tune` -> least and largest value."""


class Tune(msgspec.Struct, frozen=True, kw_only=True):
    """Training after pruning, to answer as the whole model or as a teacher does.

    Raises:
        RecipeError: a value is out of its range.
    """

    epochs: int = 0  # passes over the training images in float; 0: none
    qat: int = 0  # further passes with the rounding to 8 bits in it; 0: none
    qat_rate: float = 1e-5
    loss: Literal["kl", "dist", "mse"] = "kl"
    temperature: float = 2.0
    match: float = 0.0  # weight of the relations between tokens, as the model before pruning has them
    labels: float = 0.0  # share of the loss that looks at labels
    balance: bool = False  # every class drawn equally often and worth as much
    augment: tuple[Literal["crop", "flip", "color", "mix"], ...] | None = None  # None: by the number of passes
    views: int = 4  # different augmentations; the teacher answers each once
    batch: int = 64
    accumulate: int = 1
    rate: float = 3e-4
    precision: Literal["no", "bf16", "fp16"] = "no"
    teacher: str | None = None  # None: the model before pruning
    teacher_checkpoint: str | None = None

    def __post_init__(self) -> None:
        for key, (least, most) in TUNE_RANGES.items():
            if not least <= getattr(self, key) <= most:
                raise _wrong(f"tune.{key}", getattr(self, key), "")
        if self.batch % 8:
            raise _wrong("tune.batch", self.batch, "")
        if self.teacher_checkpoint is not None and self.teacher is None:
            why = "it holds the weights of a teacher"
            raise RecipeError("tune.teacher_checkpoint is given, and no teacher", why, 'add teacher = "timm:resnet50"')
        idle = {
            "tune.epochs is 0, and training with rounding looks at the answers alone": self.epochs == 0,
            "tune.labels is 1, so no teacher is asked": self.labels == 1,
        }
        for why, holds in idle.items():
            if self.match and holds:
                raise RecipeError("tune.match is given, and no tokens would be matched", why, "leave match out")


class ExportRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """One export.

    Raises:
        RecipeError: a value is out of its range.
    """

    model: str  # torchvision:NAME, timm:NAME, FILE.py:factory or package.module:factory
    data: str  # an image folder, a CSV of path,label, an .npz, or a built-in name
    targets: tuple[str, ...] = ("tflite-int8", "onnx-int8")
    checkpoint: str | None = None  # safetensors, or a state dict
    calibrate: str = "256"  # a number of images, a folder or a CSV
    quantize: Literal["fast", "balanced", "thorough"] = "balanced"  # how much is tried for the sake of the answers
    input: Literal["float32", "uint8", "int8"] | None = (
        None  # normalized, or the pixels as codes; None: the target's own
    )
    layout: Literal["nhwc", "nchw"] | None = None  # of the image; None: the target's own
    max_drop: float = 1.0  # points of top-1 that may be lost, 0..100
    preprocess: Preprocess | None = None  # None: the model's own
    seed: int = 0  # >= 0
    prune: str | None = None  # "2x": half of the multiply-accumulates
    prune_params: str | None = None  # "50%" of the parameters go
    prune_to_latency: float | None = None  # share of the float file's time that is left, measured on this host
    prune_score: Score = "error"  # what decides which channels go
    keep: tuple[str, ...] = ()  # layers that keep all channels
    tune: Tune | None = None  # None: no training
    resolution: int | None = None  # side of the image that the file takes, in pixels, >= 8; None: the model's own

    @property
    def pruning(self) -> tuple[str, Measure, float] | None:
        """What is asked for in the user's words, what is to shrink, and the share of it that is left."""
        if self.prune is not None:
            return self.prune, "macs", _share_left(self.prune)
        if self.prune_params is not None:
            return self.prune_params, "parameters", _share_left(self.prune_params)
        time = self.prune_to_latency
        return None if time is None else (f"{time:g} of the latency", "latency", time)

    def __post_init__(self) -> None:
        for key in ("model", "data", "checkpoint", "calibrate"):
            if getattr(self, key) == "":
                raise _wrong(key, "", "")
        if not 0 <= self.max_drop <= 100:
            raise RecipeError(
                f"max_drop is {self.max_drop:g}",
                "it is the loss of top-1 that is allowed, in points",
                "use a number of 0 to 100, such as 1.0",
            )
        if self.seed < 0:
            raise _wrong("seed", self.seed, "")
        if self.resolution is not None and self.resolution < 8:
            raise _wrong("resolution", self.resolution, "")
        self._check_pruning()
        if not self.targets:
            raise RecipeError("targets is empty", "there is nothing to export", 'give one, such as "tflite-int8"')
        if twice := [name for name in self.targets if self.targets.count(name) > 1]:
            raise RecipeError(f"the target {twice[0]} is named twice", "it gives one bundle", "name each target once")

    def _check_pruning(self) -> None:
        asked = [key for key in ("prune", "prune_params", "prune_to_latency") if getattr(self, key) is not None]
        if len(asked) > 1:
            why = "each asks for another size, and one of them decides"
            raise RecipeError(f"{' and '.join(asked[:2])} are both given", why, "give one of the two")
        if self.prune_to_latency is not None and not 0 < self.prune_to_latency < 1:
            raise _wrong("prune_to_latency", self.prune_to_latency, "")
        for key in ("prune", "prune_params"):
            size = getattr(self, key)
            if size is not None and not 0 < _share_left(size) < 1:
                what, example = EXAMPLES[key]
                why = "nothing would be removed" if _share_left(size) == 1 else f"it is {what}"
                raise RecipeError(f"{key} is {size!r}", why, f"write {example}")
        if self.pruning is None and self.keep:
            why = "it names layers that are not to be pruned"
            raise RecipeError(
                "keep is given, and nothing is to be pruned", why, 'add prune = "1.5x", or leave keep out'
            )


def _share_left(asked: str) -> float:
    """What is left after "2x" or "50%"; -1 for anything else.

    >>> _share_left("2x"), _share_left("30%"), _share_left("half")
    (0.5, 0.7, -1.0)
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(x|%)", asked.strip())
    if found is None or ((number := float(found[1])) == 0 and found[2] == "x"):
        return -1.0
    return 1 / number if found[2] == "x" else 1 - number / 100


def combine(file: Path | None, flags: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> ExportRecipe:
    """A recipe from a file, from flags, or both; a flag that is not None wins. `defaults`: what neither needs to say.

    Raises:
        RecipeError: the file is not TOML, a key is unknown, or a value is wrong or missing.
    """
    asked = dict(defaults or {}) | (_read(file) if file else {})
    for key, value in flags.items():
        if isinstance(value, Mapping):  # flags of a table win one by one
            given = {name: part for name, part in value.items() if part is not None}
            value = {**asked.get(key, {}), **given} if given and isinstance(asked.get(key, {}), Mapping) else None
        asked |= {} if value is None else {key: value}
    return parse(asked, str(file) if file else "the command")


def parse(asked: Mapping[str, Any], where: str) -> ExportRecipe:
    """Check every key and value.

    Args:
        asked: keys as in a recipe file.
        where: what to call the source in an error.
    """
    _check_keys(asked, ExportRecipe, where, "")
    for key, words in (("model", "MODEL"), ("data", "--data DATA")):
        if key not in asked:
            fix = f"give {words}, or a recipe with {EXAMPLES[key][1]}; see `shrink export --help`"
            raise RecipeError(f"no {key} is given", f"{where} does not name any, and there is no default", fix)
    content = dict(asked)
    if type(content.get("calibrate")) is int:
        content["calibrate"] = str(content["calibrate"])
    if isinstance(content.get("preprocess"), Mapping):
        content["preprocess"] = _preprocess(content["preprocess"], where)
    if isinstance(content.get("tune"), Mapping):
        _check_keys(content["tune"], Tune, where, "tune.")
    try:
        return msgspec.convert(content, type=ExportRecipe, strict=True)
    except msgspec.ValidationError as error:
        raise _explain(error, content, where) from error


def _preprocess(asked: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All parts are there, and the numbers are numbers."""
    _check_keys(asked, Preprocess, where, "preprocess.")
    for key in Preprocess.__struct_fields__:
        name = f"preprocess.{key}"
        if key not in asked and name not in OPTIONAL:
            why = "each part changes the answers, so none is guessed"
            raise RecipeError(f"{name} is missing in {where}", why, f"add {EXAMPLES[name][1]}, as in training")
    for key in ("mean", "std"):
        values = asked[key] if isinstance(asked[key], list) else []
        if any(isinstance(value, float) and not math.isfinite(value) for value in values):
            raise _wrong(f"preprocess.{key}", values, where)
    return {"crop": None, **asked}


def _check_keys(asked: Mapping[str, Any], kind: type[msgspec.Struct], where: str, prefix: str) -> None:
    fields = kind.__struct_fields__
    for key in asked:
        if key not in fields:
            raise RecipeError(f"unknown key {prefix + key!r} in {where}", "no step reads it", nearest(key, fields))


def _explain(error: msgspec.ValidationError, content: Mapping[str, Any], where: str) -> RecipeError:
    """msgspec names the place as `$.preprocess.size[0]`."""
    found = re.search(r"\$\.([a-z_.]+)", str(error))
    key = found[1] if found else ""
    value: Any = content
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return _wrong(key, value, where) if key in EXAMPLES else RecipeError(f"{where} is wrong", str(error), "correct it")


def _wrong(key: str, value: object, where: str) -> RecipeError:
    what, example = EXAMPLES[key]
    return RecipeError(f"{key} is {value!r}{' in ' + where if where else ''}", f"it is {what}", f"write {example}")


def _read(file: Path) -> dict[str, Any]:
    try:
        asked = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise RecipeError(f"the recipe {file} cannot be read", why, "give the path of a TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"the recipe {file} is not TOML", str(error), "correct that line") from error
    paths: dict[str, Any] = {key: _beside(file, key, value) for key, value in asked.items() if isinstance(value, str)}
    if isinstance(tune := asked.get("tune"), Mapping):
        kinds = {"teacher": "model", "teacher_checkpoint": "checkpoint"}
        found = {key: _beside(file, kinds[key], tune[key]) for key in kinds if isinstance(tune.get(key), str)}
        paths["tune"] = {**tune, **found}
    return asked | paths


def _beside(file: Path, key: str, value: str) -> str:
    """Paths in a recipe are relative to the recipe, wherever it is read from."""
    is_path = {
        "checkpoint": True,
        "model": value.partition(":")[0].endswith(".py"),
        "data": value not in BUILTIN,
        "calibrate": not re.fullmatch(r"\s*-?[0-9]+\s*", value) and value not in BUILTIN,
    }
    return str(file.parent / value) if value and is_path.get(key, False) else value
