"""A bundle and an engine, ready to name what is in an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from device_runner import postprocess, preprocess
from device_runner.bundle import Bundle, open_bundle
from device_runner.engines import open_engine
from device_runner.engines.base import Engine
from device_runner.postprocess import Answer


@dataclass(frozen=True, slots=True)
class Classifier:
    """Run `selftest(classifier.bundle, classifier.engine)` once before trusting its answers."""

    bundle: Bundle
    engine: Engine

    @classmethod
    def open(cls, path: Path | str, engine: str | None = None, threads: int = 1) -> Classifier:
        """Verify the bundle at `path` and load the very bytes that were verified.

        Raises:
            BundleError: the bundle is damaged.
            EngineError: the runtime is missing or refuses the model.
        """
        bundle = open_bundle(path)
        return cls(bundle, open_engine(bundle.model, bundle.manifest.format, engine=engine, threads=threads))

    def classify(self, data: bytes, k: int) -> list[Answer]:
        """The k most probable classes of an encoded image, the best first.

        Raises:
            ImageError: the image cannot be decoded or is refused.
            EngineError: the runtime fails, or answers with no numbers.
        """
        m = self.bundle.manifest
        pixels = preprocess.pixels(preprocess.decode(data), m.preprocess)
        raw = self.engine.run(preprocess.tensor(pixels, m.preprocess, m.input))
        return postprocess.top_k(postprocess.confidences(raw, m.output), m.labels, k)
