"""The runner's state as Prometheus text: a fixed set of series, whatever labels a model has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from device_runner.histogram import Histogram

PREFIX = "device_runner_"
ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})

HELP: dict[str, tuple[str, str]] = {  # name -> (type, meaning)
    "up_seconds": ("gauge", "time since the start"),
    "frames_received_total": ("counter", "frames that came from the source"),
    "frames_dropped_total": ("counter", "frames that a newer one replaced"),
    "frames_processed_total": ("counter", "frames that were decided on"),
    "frames_refused_total": ("counter", "frames that could not be decoded"),
    "frames_still_total": ("counter", "frames on which nothing moved"),
    "inference_failures_total": ("counter", "frames on which the model gave no answer"),
    "model_restarts_total": ("counter", "restarts of the model's process"),
    "source_starts_total": ("counter", "starts of the source's process"),
    "source_stalls_total": ("counter", "times the source was lost"),
    "source_live": ("gauge", "1 while frames come"),
    "tampered": ("gauge", "1 while the camera is frozen or covered"),
    "mqtt_online": ("gauge", "1 while the broker is connected"),
    "rules_fired_total": ("counter", "times a rule fired"),
    "unlocks_done_total": ("counter", "unlocks that were carried out"),
    "unlocks_dropped_total": ("counter", "unlocks that were late, failed or could not be recorded"),
    "alerts_delivered_total": ("counter", "alerts that were delivered"),
    "alerts_evicted_total": ("counter", "alerts that were lost because the spool was full"),
    "alerts_waiting": ("gauge", "alerts in the spool"),
    "disk_failures_total": ("counter", "records, alerts and pictures that could not be written"),
    "temperature_celsius": ("gauge", "the hottest sensor"),
    "undervoltage": ("gauge", "1 while the supply is too weak"),
    "slowdown": ("gauge", "1 at full rate; 2, 4 or 8 while hot"),
    "memory_bytes": ("gauge", "resident memory of the runner and its children"),
    "swaps_total": ("counter", "changes of model"),
    "rollbacks_total": ("counter", "trials that failed"),
    "trial_frames": ("gauge", "frames that a model on trial has answered"),
    "drift_psi": ("gauge", "population stability index of the answers against the first ones; above 0.25 they drift"),
}


def render(values: Mapping[str, float | None], model: Mapping[str, str], inference: Histogram) -> str:
    """The page. What is not known (None) is left out, never shown as 0."""
    return "".join(f"{line}\n" for line in _lines(values, model, inference))


def _lines(values: Mapping[str, float | None], model: Mapping[str, str], inference: Histogram) -> Iterator[str]:
    for name, (kind, meaning) in HELP.items():
        value = values.get(name)
        if value is not None:
            yield from (
                f"# HELP {PREFIX}{name} {meaning}",
                f"# TYPE {PREFIX}{name} {kind}",
                f"{PREFIX}{name} {value:.12g}",
            )
    labels = ",".join(f'{key}="{value.translate(ESCAPES)}"' for key, value in model.items())
    yield from (f"# HELP {PREFIX}model_info the model that decides", f"# TYPE {PREFIX}model_info gauge")
    yield f"{PREFIX}model_info{{{labels}}} 1"
    name = f"{PREFIX}inference_seconds"
    yield from (f"# HELP {name} time of the model alone", f"# TYPE {name} histogram")
    for bound, count in zip(inference.bounds, inference.cumulative(), strict=True):
        yield f'{name}_bucket{{le="{bound:g}"}} {count}'
    yield f'{name}_bucket{{le="+Inf"}} {inference.count}'
    yield from (f"{name}_sum {inference.total:.9g}", f"{name}_count {inference.count}")
