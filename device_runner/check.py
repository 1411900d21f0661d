"""Explains a configuration beside its bundle: what each rule takes to fire, and what can never happen."""

from __future__ import annotations

import math
from collections.abc import Iterator

from device_runner import programs
from device_runner.config.parts import Config, Rule
from device_runner.errors import ConfigError
from device_runner.float32 import f32
from device_runner.manifest import Manifest, Output
from device_runner.sources.grammar import parse_url, redact
from device_runner.text import printable


def check(config: Config, manifest: Manifest) -> None:
    """Refuse rules that this bundle can never satisfy, and actions that cannot be done.

    Raises:
        ConfigError: names the rule or action.
    """
    for rule in config.rule:
        if rule.label not in manifest.labels:
            known = ", ".join(manifest.labels[:8]) + (", ..." if len(manifest.labels) > 8 else "")
            raise ConfigError(f"rule {rule.name}: no label is {rule.label!r}", f"labels: {known}", "correct the label")
    for action in config.action:
        if action.exec is not None:
            programs.check_program(action.exec[0])


def warnings(config: Config, manifest: Manifest) -> Iterator[str]:
    """What is allowed, but hardly meant."""
    for rule in config.rule:
        best = highest(manifest.output, len(manifest.labels))
        if f32(rule.min_confidence) > best:
            yield (
                f"rule {rule.name} can never fire: it asks for a confidence of {rule.min_confidence:g}, "
                f"and the model's output tops out at {best:.5f}"
            )
        if rule.action is None:
            yield f"rule {rule.name} has no action: it is only recorded"
    used = {rule.action for rule in config.rule}
    yield from (f"action {action.name} belongs to no rule" for action in config.action if action.name not in used)
    if not config.rule:
        yield "there are no rules: frames are only named"
    if config.mqtt and not config.mqtt.tls and config.mqtt.password_file:
        yield "the MQTT password crosses the network in clear: set mqtt.tls"
    if config.http and config.http.host not in ("127.0.0.1", "::1", "localhost"):
        yield f"metrics are served to the network at {config.http.host}, without a password"
    if config.bundle and config.trusted_keys is None:
        yield "no trusted_keys: any bundle that is whole is run, whoever made it"


def explain(config: Config, manifest: Manifest) -> Iterator[str]:
    """The configuration in sentences."""
    place = parse_url(config.source.url)
    yield f"source: {place.shown} ({place.kind}; {'the newest frame counts' if place.live else 'every frame counts'})"
    yield f"model: {printable(manifest.name)}, {manifest.target}, {len(manifest.labels)} labels"
    for rule in config.rule:
        yield explain_rule(rule, manifest)
    for action in config.action:
        how = {"unlock": "at most once, never late", "alert": "at least once, kept until delivered"}[action.delivery]
        what = f"publishes to {action.mqtt}" if action.mqtt else f"posts to {redact(action.webhook or '')}"
        what = f"runs {action.exec[0]}" if action.exec else what
        yield f"action {action.name}: {what}; {how}"
    if config.dry_run:
        yield "dry run: verdicts are recorded, nothing is done; set dry_run = false to act"


def explain_rule(rule: Rule, manifest: Manifest) -> str:
    """One rule in a sentence, with the threshold that the model's output really allows."""
    limit = effective(rule.min_confidence, manifest.output)
    shown = f"{rule.min_confidence:g}" + (f" (in the model's steps: {limit:.5f})" if limit is not None else "")
    margin = f", {rule.min_margin:g} above every other label" if rule.min_margin else ""
    release = rule.min_confidence if rule.release_below is None else rule.release_below
    cooldown = f" and {rule.cooldown_s:g} s" if rule.cooldown_s else ""
    when = f"; {', '.join(rule.hours)}, by the device's clock" if rule.hours else ""
    return (
        f"rule {rule.name}: {printable(rule.label)} at {shown} or above{margin}, in {rule.k} of {rule.n} frames within "
        f"{rule.within_s:g} s, none older than {rule.max_age_ms:g} ms; again only after a frame below {release:g}"
        f"{cooldown}{when}; action: {rule.action or 'none'}"
    )


def effective(threshold: float, output: Output) -> float | None:
    """The lowest confidence at or above the threshold that quantized probabilities can take; None: they are not."""
    if output.kind != "probabilities" or output.scale is None or output.zero_point is None:
        return None
    scale = f32(output.scale)
    codes = math.ceil(f32(threshold) / scale - 1e-6)
    while f32(codes * scale) < f32(threshold):
        codes += 1
    return f32(codes * scale)


def highest(output: Output, classes: int) -> float:
    """The highest confidence that the output can express."""
    if output.scale is None or output.zero_point is None:
        return 1.0
    low, high = {"int8": (-128, 127), "uint8": (0, 255)}[output.dtype]
    top, bottom = (f32((code - output.zero_point) * f32(output.scale)) for code in (high, low))
    if output.kind == "probabilities":
        return top
    others = (classes - 1) * math.exp(bottom - top)  # all other logits at their lowest
    return f32(1 / (1 + others))
