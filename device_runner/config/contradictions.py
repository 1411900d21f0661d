"""What the values of a configuration must be to each other; each rule is one row.

`parts.py` checks each value alone. The rules that need the bundle are in `check.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from string import Formatter
from urllib.parse import urlsplit

from device_runner.config.parts import Action, Config, Rule
from device_runner.errors import ConfigError
from device_runner.hours import is_span, parse
from device_runner.sources.grammar import parse_url

FIELDS = ("rule", "label", "confidence", "id")
"""What an action's arguments may be filled with."""

Row = tuple[bool, str, str, str]
"""(does it hold, what is wrong if not, why, fix)."""


def check(config: Config) -> None:
    """Refuse a configuration whose values contradict each other.

    Raises:
        ConfigError: names the first rule that does not hold.
    """
    parse_url(config.source.url)
    for holds, what, why, fix in rows(config):
        if not holds:
            raise ConfigError(what, why, fix)


def rows(c: Config) -> Iterator[Row]:
    """Every rule, in the order of the file."""
    both, none = c.bundle is not None and c.store is not None, c.bundle is None and c.store is None
    yield not both, "bundle and store are both given", "the model comes from one place", "remove one of them"
    yield not none, "neither bundle nor store is given", "there is no model to run", 'add bundle = "PATH"'
    yield from _source(c)
    for kind, names in (("rule", [r.name for r in c.rule]), ("action", [a.name for a in c.action])):
        twice = next((n for n in names if names.count(n) > 1), None)
        yield twice is None, f"two {kind}s are named {twice}", "a record must say which one it was", "rename one"
    for i, rule in enumerate(c.rule):
        yield from _rule(f"rule[{i}] ({rule.name})", rule, {a.name for a in c.action})
    for i, action in enumerate(c.action):
        yield from _action(f"action[{i}] ({action.name})", action, c)
    if c.mqtt is not None:
        yield bool(c.mqtt.host), "mqtt.host is empty", "there is no broker to connect to", "name a host"
        yield c.mqtt.port > 0, "mqtt.port is 0", "a broker listens on a port", "use 1883, or 8883 with tls"
        lone = c.mqtt.password_file is not None and c.mqtt.username is None
        yield not lone, "mqtt.password_file is given without mqtt.username", "MQTT has no such login", "add username"
        lone = c.mqtt.ca_file is not None and not c.mqtt.tls
        yield not lone, "mqtt.ca_file is given without mqtt.tls", "the connection would be plain", "add tls = true"
    yield not c.review or bool(c.state), "review is on without state", "its frames need a place", 'add state = "DIR"'
    if c.heat is not None:
        apart = c.heat.resume_c < c.heat.limit_c
        yield apart, "heat.resume_c is not below heat.limit_c", "the rate would swing", "set it some degrees lower"


def _source(c: Config) -> Iterator[Row]:
    raw = parse_url(c.source.url).kind == "raw"
    good = c.source.size is not None and min(c.source.size) > 0 and c.source.size[0] * c.source.size[1] <= 25_000_000
    yield not raw or good, "source.size is missing or wrong", "raw frames do not say theirs", "add size = [640, 480]"
    yield raw or c.source.size is None, "source.size is given", "only raw:- needs it", "remove it"


def _rule(at: str, r: Rule, actions: set[str]) -> Iterator[Row]:
    yield r.k <= r.n, f"{at}: k is {r.k}, above n = {r.n}", "it could never fire", "lower k or raise n"
    yield r.min_confidence > 0, f"{at}: min_confidence is 0", "every frame would vote yes", "use at least 0.5"
    release = r.release_below if r.release_below is not None else r.min_confidence
    above = f"{at}: release_below is {release}, above min_confidence = {r.min_confidence}"
    yield release <= r.min_confidence, above, "the rule would release while it still votes yes", "lower it"
    yield release > 0, f"{at}: release_below is 0", "it could never fire twice", "raise it"
    wrong = next((span for span in r.hours if not is_span(span)), None)
    why = "a span is HH:MM-HH:MM, perhaps after days such as mon-fri or sat"
    yield wrong is None, f"{at}: hours {wrong!r} are no span of time", why, 'write it like "mon-fri 07:00-19:00"'
    empty = next((span for span in r.hours if not parse(span)[0][1]), None)
    yield empty is None, f"{at}: hours {empty!r} have no length", "it could never fire", 'use "00:00-24:00" for a day'
    known = r.action is None or r.action in actions
    yield known, f"{at}: there is no action {r.action}", f"actions: {', '.join(sorted(actions)) or 'none'}", "add it"


def _action(at: str, a: Action, c: Config) -> Iterator[Row]:
    one = sum(way is not None for way in (a.exec, a.mqtt, a.webhook)) == 1
    yield one, f"{at}: needs one of exec, mqtt and webhook", "an action does one thing", "give one of them"
    if a.webhook is not None:
        yield (
            _is_web(a.webhook),
            f"{at}: webhook is no address of a web server",
            "it is posted to",
            "use https://HOST/PATH",
        )
        open_ = "@" not in a.webhook.partition("://")[2].partition("/")[0]
        yield open_, f"{at}: webhook holds a password", "this file may be read by others", "put a token in token_file"
    lone = a.token_file is not None and a.webhook is None
    yield not lone, f"{at}: token_file is given without webhook", "nothing else sends it", "remove it"
    yield a.mqtt is None or c.mqtt is not None, f"{at}: there is no [mqtt]", "no broker is known", "add [mqtt] host"
    kept = a.delivery == "unlock" or c.state is not None
    yield kept, f"{at}: an alert needs state", "it is kept on disk until delivered", 'add state = "DIR"'
    kept = a.delivery == "alert" or c.state is not None
    yield kept, f"{at}: an unlock needs state", "one that cannot be recorded is not done", 'add state = "DIR"'
    if a.exec is not None:
        yield bool(a.exec), f"{at}: exec is empty", "there is no program to run", 'exec = ["/path/to/program"]'
        program = a.exec[0] if a.exec else ""
        absolute = PurePosixPath(program).is_absolute()
        yield absolute, f"{at}: {program} is not an absolute path", "PATH decides nothing here", "write it in full"
        for argument in a.exec:
            bad = _unknown_field(argument)
            known = ", ".join(f"{{{f}}}" for f in FIELDS)
            yield bad is None, f"{at}: {bad} cannot be filled in", f"known: {known}", "correct it, or double the brace"


def _is_web(url: str) -> bool:
    """Whether it is http or https with a host and no control characters."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for a port that is none
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable() and " " not in url


def _unknown_field(text: str) -> str | None:
    """The first {field} of a template that is not a plain name of FIELDS, or what is malformed."""
    try:
        for _, name, spec, conversion in Formatter().parse(text):
            if name is not None and (name not in FIELDS or spec or conversion):
                return f"{{{name}}}"
    except ValueError as error:
        return f"{text!r} ({error})"
    return None
