"""Opens a model as the configuration says."""

from __future__ import annotations

from device_runner.bundle import Bundle
from device_runner.config.parts import Config
from device_runner.worker.process import ProcessWorker, Worker


def start_worker(config: Config, bundle: Bundle, motion: float = 0.0) -> ProcessWorker:
    """Start the process of a model; it is not ready yet."""
    return ProcessWorker(
        str(bundle.path),
        bundle.sha256,
        engine=config.engine,
        threads=config.threads,
        motion=motion,
        deadline_s=config.deadline_s,
        max_restarts=config.max_restarts,
    )


def open_worker(config: Config, bundle: Bundle) -> Worker:
    """Load the model as the configuration says, and prove it on its golden images.

    Raises:
        Problem: it cannot be loaded, or fails the self-test.
    """
    if config.isolation == "inline":
        from device_runner.worker.model import Model  # numpy, Pillow and a runtime: only here if the model runs here

        return Model.load(bundle, config.engine, config.threads, motion=config.source.motion)
    return start_worker(config, bundle, config.source.motion).wait()
