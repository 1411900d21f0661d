"""What Home Assistant is told so that it shows the device by itself (MQTT device discovery)."""

from __future__ import annotations

import json

from device_runner import __version__

BIRTH_TOPIC = "homeassistant/status"

COMPONENTS: dict[str, dict[str, str]] = {  # name -> its platform and where its value comes from
    "label": {"p": "sensor", "name": "Label", "t": "seen", "value_template": "{{ value_json.label }}"},
    "confidence": {
        "p": "sensor",
        "name": "Confidence",
        "t": "seen",
        "value_template": "{{ value_json.confidence }}",
        "state_class": "measurement",
    },
    "source": {"p": "sensor", "name": "Camera", "t": "status", "value_template": "{{ value_json.source }}"},
    "tamper": {
        "p": "binary_sensor",
        "name": "Tamper",
        "t": "status",
        "value_template": "{{ 'ON' if value_json.tamper else 'OFF' }}",
        "device_class": "tamper",
    },
    "problem": {
        "p": "binary_sensor",
        "name": "Problem",
        "t": "status",
        "value_template": "{{ 'ON' if value_json.degraded else 'OFF' }}",
        "device_class": "problem",
    },
}


def discovery(device: str, base: str) -> tuple[str, bytes]:
    """Topic and retained payload.

    Args:
        device: the device's name, a plain word.
        base: what its topics start with.
    """
    components = {
        name: {**fields, "t": f"{base}/{fields['t']}", "unique_id": f"device_runner_{device}_{name}"}
        for name, fields in COMPONENTS.items()
    }
    for fields in components.values():
        fields["stat_t"] = fields.pop("t")
    payload = {
        "dev": {"ids": [f"device_runner_{device}"], "name": device, "sw": __version__, "mf": "device_runner"},
        "o": {"name": "device_runner", "sw": __version__},
        "avty_t": f"{base}/available",
        "cmps": components,
    }
    return f"homeassistant/device/{device}/config", json.dumps(payload).encode()
