"""Where a trained model comes from: `load("timm:resnet18", checkpoint=Path("weights.safetensors"))`."""

from shrink.models.loading import Model, load, resized

__all__ = ["Model", "load", "resized"]
