"""A run on disk, with answers and pictures of it, and names that try to break a page."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from PIL import Image
from report_golden import example

from shrink.report import schema
from shrink.report.schema import Report, SkippedImage
from shrink.runs import pictures, predictions
from shrink.runs.predictions import Answered, Predictions

N = 2000

_RUN = "document.documentElement.setAttribute('data-ran','1')"
HOSTILE = (
    f"<script>{_RUN}</script>",
    f"</script><script>{_RUN}</script>",
    f"<ScRiPt>{_RUN}</sCrIpT>",
    f"<img src=x onerror=\"{_RUN}\">",
    f"<svg onload=\"{_RUN}\">",
    f"<svg><script>{_RUN}</script></svg>",
    f"\"><script>{_RUN}</script>",
    f"'><script>{_RUN}</script>",
    f"\" onmouseover=\"{_RUN}\" x=\"",
    f"' onfocus='{_RUN}' autofocus='",
    f"javascript:{_RUN}",
    f"<a href=\"javascript:{_RUN}\">x</a>",
    f"<iframe srcdoc=\"<script>{_RUN}</script>\">",
    "<iframe src=https://example.org>",
    "<object data=https://example.org>",
    "<link rel=stylesheet href=https://example.org/x.css>",
    "<meta http-equiv=refresh content=\"0;url=https://example.org\">",
    "<base href=https://example.org/>",
    "<style>*{display:none}</style>",
    "</style><style>body{display:none}",
    "<style>@import url(https://example.org/x.css)</style>",
    "}body{display:none}",
    "*/body{display:none}/*",
    "expression(alert(1))",
    "url(javascript:alert(1))",
    "url(https://example.org/x.png)",
    "</title><h1>x</h1>",
    "</svg><h1>x</h1>",
    "</text></svg><script>1</script>",
    "</main></body></html>",
    "</td></tr></table>",
    "</section></section></section>",
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "<?xml version='1.0'?>",
    "<!doctype html>",
    "&lt;script&gt;",
    "&#60;script&#62;",
    "&",
    "&nbsp;&zwnj;&rlm;",
    "{{7*7}}",
    "${7*7}",
    "`${x}`",
    "\"",
    "'",
    "\\",
    "\u202eright to left\u202c",
    "\u2067isolate",
    "שלום עולם",
    "العربية في الوسط",
    "x" * 5000,
    "long words " * 500,
    "W" * 299,
    "👩‍👩‍👧‍👦 🏳️‍🌈 🔥",
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳",
    "\x00\x01\x02\x1b[2J\x7f",
    "a\nb\r\nc\td\u2028e\u2029f",
    "\ufeff\ufffe\ud83d",
)  # fmt: skip


def answers(classes: tuple[str, ...], refs: tuple[str, ...], targets: tuple[str, ...]) -> Predictions:
    """N answers that fit the figures of the golden report's first file: 4 lost, 8 won, 2000 images."""
    rng = np.random.default_rng(0)
    labels = np.arange(N, dtype=np.int32) % len(classes)
    other = (labels + 1) % len(classes)

    def rows(right: np.ndarray) -> Answered:
        sure = rng.uniform(0.5, 1, N)
        return Answered(np.where(right, labels, other), sure.astype(np.float16), (sure - 0.5).astype(np.float16))

    right = np.arange(N) >= 252
    now = right.copy()
    now[[300, 301, 302, 400]] = False
    now[:8] = True
    sites = tuple("lobby" if i % 3 else "garage" for i in range(N))
    hashes = np.stack([np.frombuffer(i.to_bytes(16, "big"), np.uint8) for i in range(N)])
    return Predictions(
        classes, refs, hashes, labels, {"site": sites}, rows(right), {name: rows(now) for name in targets}
    )


def photo(row: int, size: tuple[int, int] = (300, 200)) -> bytes:
    """A picture with detail, as a JPEG."""
    rng = np.random.default_rng(row)
    small = Image.fromarray(rng.integers(0, 256, (24, 36, 3), dtype=np.uint8))
    out = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


def write_run(folder: Path, report: Report, answered: Predictions | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_bytes(schema.dump(report))
    if answered is not None:
        (folder / predictions.NAME).write_bytes(predictions.dump(answered))
        (folder / pictures.NAME).write_bytes(pictures.dump(answered, photo))
    return folder


def plain_run(folder: Path) -> Path:
    """The golden report, and answers that fit it."""
    report = example()
    targets = tuple(a.target for a in report.artifacts)
    refs = tuple(f"photos/{i}.jpg" for i in range(N))
    return write_run(folder, report, answers(tuple(f"class {i}" for i in range(60)), refs, targets))


def hostile_run(folder: Path) -> Path:
    """The same run with hostile names wherever a name comes from outside: labels, images, sites, targets, texts."""
    names = tuple(name.encode("utf-8", "surrogatepass").decode("utf-8", "replace") for name in HOSTILE)
    report, several = example(), " ".join(names)
    artifacts = tuple(
        replace(a, target=names[i], bundle=names[i], file=names[2 + i], changes=names, skipped=())
        for i, a in enumerate(report.artifacts)
    )
    bad = replace(
        report,
        command=("shrink", *names),
        model=replace(report.model, spec=names[0], weights=several),
        data=replace(report.data, name=names[1], notes=names, skipped=(SkippedImage(ref=names[3], reason=several),)),
        artifacts=artifacts,
        cross=(),
        notes=names[:9],
        host=several,
        versions={names[4]: names[5]},
    )
    kept = answers(names, tuple(f"{names[i % 60]}{i}" for i in range(N)), tuple(a.target for a in artifacts))
    slices = {names[6]: tuple(names[i % 60] for i in range(N))}
    return write_run(
        folder,
        bad,
        Predictions(kept.classes, kept.refs, kept.hashes, kept.labels, slices, kept.reference, kept.files),
    )
