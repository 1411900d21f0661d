"""Models of torchvision and timm. Nothing is downloaded unless `?weights=` or `?pretrained=true` asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from device_runner.manifest import Preprocess
from shrink.errors import ModelError
from shrink.models.spec import Argument, Spec, suggest
from shrink.models.torchvision_compat import import_torchvision
from shrink.models.transforms import from_timm, from_torchvision


@dataclass(frozen=True, slots=True)
class Built:
    """A model fresh from its factory."""

    module: nn.Module
    weights: str  # "pretrained", "random" or "factory", see `Model.weights`
    default_preprocess: Callable[[], Preprocess]  # called only when none is given; may raise ModelError
    labels: tuple[str, ...] | None
    trained_on: frozenset[bytes] = frozenset()  # see `Model.trained_on`


def names(library: str) -> list[str]:
    """All classification models of "torchvision" or "timm", sorted."""
    return sorted(_LISTS[library]())


def torchvision(spec: Spec) -> Built:
    """`torchvision:NAME`; `?weights=DEFAULT` or another member of its weights enum, else random weights."""
    models = import_torchvision().models
    _known(spec, names("torchvision"))
    arguments = dict(spec.arguments)
    if arguments.pop("pretrained", False):
        arguments.setdefault("weights", "DEFAULT")
    enum = models.get_model_weights(spec.name)
    wanted = _member(spec, enum, arguments.pop("weights", None))
    module = _make(spec, partial(models.get_model, spec.name, weights=wanted), arguments, wanted is not None)
    shown = wanted or enum.DEFAULT
    labels = None if "num_classes" in arguments else tuple(shown.meta["categories"])
    weights = "pretrained" if wanted else "random"
    return Built(module, weights, lambda: from_torchvision(shown.transforms()), labels)


def timm(spec: Spec) -> Built:
    """`timm:NAME`; `?pretrained=true` downloads, else random weights."""
    timm = import_timm()
    tagged = timm.list_pretrained() if "." in spec.name else []
    _known(spec, names("timm") + tagged)
    arguments = dict(spec.arguments)
    pretrained = bool(arguments.pop("pretrained", False))
    config = timm.models.get_pretrained_cfg(spec.name)
    if config is not None and not config.fixed_input_size:
        arguments.pop("img_size", None)  # the network takes any size: only the preprocessing needs it
    module: Any = _make(spec, partial(timm.create_model, spec.name, pretrained=pretrained), arguments, pretrained)
    labels = None if "num_classes" in arguments else timm_labels(module)
    weights = "pretrained" if pretrained else "random"
    return Built(module, weights, lambda: timm_preprocess(module.pretrained_cfg, spec), labels)


def timm_preprocess(pretrained_cfg: Mapping[str, Any], spec: Spec) -> Preprocess:
    """From a `pretrained_cfg` as timm keeps it, with the specification's img_size and in_chans."""
    sizes = {key: spec.arguments[key] for key in ("img_size", "in_chans") if key in spec.arguments}
    if any(type(size) is not int or size < 1 for size in sizes.values()):
        fix = "write it as in timm:vit_tiny_patch16_224?img_size=192"
        raise ModelError(f"a size in {spec.text} is not a whole number", f"the arguments are {spec.arguments}", fix)
    config = import_timm().data.resolve_data_config(sizes, pretrained_cfg=dict(pretrained_cfg))
    channels = sizes.get("in_chans", len(config["mean"]))
    if len(config["mean"]) != channels:
        raise ModelError(
            f"{spec.text} takes {channels} channels and its transform makes {len(config['mean'])}",
            "the transform that timm keeps for it is of the original model",
            "give the preprocessing in full as [preprocess] in the recipe",
        )
    return from_timm(config)


def timm_labels(module: Any) -> tuple[str, ...] | None:
    """The ImageNet class names of a timm model, if it is of a known ImageNet subset."""
    data = import_timm().data
    subset = data.infer_imagenet_subset(module)
    return None if subset is None else tuple(data.ImageNetInfo(subset).label_descriptions())


def import_timm() -> Any:
    """timm, which needs torchvision to be importable."""
    import_torchvision()
    import timm  # after the line above

    return timm


def _torchvision_names() -> list[str]:
    models = import_torchvision().models
    return list(models.list_models(module=models))  # the module itself: no detection, segmentation, video


_LISTS: dict[str, Callable[[], list[str]]] = {
    "torchvision": _torchvision_names,
    "timm": lambda: list(import_timm().list_models()),
}


def _known(spec: Spec, known: list[str]) -> None:
    if spec.name in known:
        return
    raise ModelError(
        f"{spec.source} has no classification model {spec.name!r}",
        f"it has {len(known)} of them, none of that name",
        suggest(spec.name, known, spec.source),
    )


def _member(spec: Spec, enum: Any, name: Argument | None) -> Any:
    """The member of a torchvision weights enum; None for none asked."""
    if name is None:
        return None
    if name not in enum.__members__:
        raise ModelError(
            f"{spec.name} has no weights {name!r}",
            "the name is looked up in torchvision's weights of this model",
            suggest(str(name), list(enum.__members__), spec.source),
        )
    return enum[name]


def _make(spec: Spec, factory: Callable[..., Any], arguments: dict[str, Argument], download: bool) -> nn.Module:
    """Call a library's factory; whatever it raises becomes a ModelError, this is the border."""
    try:
        module: nn.Module = factory(**arguments)
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]
        if download and not isinstance(error, TypeError | ValueError):
            fix = "check the network, or fetch the weights elsewhere and give them with --checkpoint FILE"
            raise ModelError(f"the pretrained weights of {spec.text} could not be fetched", reason, fix) from error
        fix = "correct the name or the arguments after '?'"
        raise ModelError(f"{spec.text} could not be built", reason, fix) from error
    return module
