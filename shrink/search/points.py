"""The points of a search, and the recipe of each."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from shrink.recipe import ExportRecipe

STEP = 0.05  # between two factors of pruning


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One choice of everything."""

    prune: float  # how many times fewer multiply-accumulates; 1: none are removed
    resolution: int  # side of the image in pixels
    targets: str  # names joined by "+": files that must all keep the limits
    epochs: int = 0  # of training what is left to answer as the whole model; 0 where nothing was removed

    def __str__(self) -> str:
        pruned = "whole" if self.prune == 1 else f"pruned {self.prune:g}x"
        trained = f", {self.epochs} epochs" if self.epochs else ""
        return f"{pruned}{trained}, {self.resolution} px, {self.targets}"


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """All points.

    Attributes:
        own: the model's own resolution.
        declined: what was left out, and why.
    """

    most_pruned: float  # a whole number of steps
    resolutions: tuple[int, ...]
    targets: tuple[str, ...]
    own: int
    epochs: tuple[int, ...] = (0,)
    declined: tuple[str, ...] = ()

    def every(self) -> Iterator[Point]:
        """All points; a whole model is not trained."""
        for step in range(1 + round((self.most_pruned - 1) / STEP)):
            for side in self.resolutions:
                for names in self.targets:
                    for epochs in self.epochs if step else (0,):
                        yield Point(prune=round(1 + STEP * step, 2), resolution=side, targets=names, epochs=epochs)

    def starts(self) -> Iterator[Point]:
        """Where a search begins: the whole model, in every precision."""
        for names in self.targets:
            yield self.at(1.0, names)

    def at(self, factor: float, targets: str) -> Point:
        """The point at the model's own resolution, trained for the fewest epochs that are any."""
        epochs = 0 if factor == 1 else min(filter(None, self.epochs), default=0)
        return Point(prune=factor, resolution=self.own, targets=targets, epochs=epochs)

    def recipe(self, base: ExportRecipe, point: Point, max_drop: float) -> ExportRecipe:
        """What `shrink export` takes to make the point."""
        return msgspec.structs.replace(
            base,
            targets=tuple(point.targets.split("+")),
            prune=None if point.prune == 1 else f"{point.prune:g}x",
            keep=() if point.prune == 1 else base.keep,
            resolution=None if point.resolution == self.own else point.resolution,
            max_drop=max_drop,
            tune=None if base.tune is None else msgspec.structs.replace(base.tune, epochs=point.epochs),
        )
