"""The house keeps its floors: who may import whom, what importing may do, and which names others rely on.

Every rule is a function from source text to complaints, so that each is also tested on text that breaks it.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("shrink", "device_runner")

FLOORS: tuple[tuple[str, ...], ...] = (
    ("device_runner",),
    ("shrink",),  # the bare package: a version
    (
        "errors",
        "files",
        "process",
        "quiet",
        "shell",
        "recipe",
        "progress",
        "graph",
        "models",
        "data",
        "targets",
        "runs",
        "boards",
    ),
    # the stages
    ("prune", "tune", "quantize", "export", "verify", "bench", "inspect", "report", "doctor", "debug", "roofline"),
    ("compare",),  # judges by what stages found
    ("steps",),  # join the stages
    ("pipeline",),
    ("search",),  # many exports
    ("verbs",),
    ("cli",),
)
"""Rooms from the ground up; a room may import the floors below it. A new room needs a place here."""

SHARING = 2
"""The floor whose rooms may import each other, as long as there is no circle. On the others they may not."""

EXCEPTIONS: Mapping[tuple[str, str], str] = {}
"""(importing room, imported room) -> why the rule does not hold there."""

RUNNER_MAY_IMPORT = {"device_runner", "numpy", "PIL", "msgspec", "ai_edge_litert", "tflite_runtime", "onnxruntime"}
"""What a camera must have installed, apart from Python itself."""

UNSAFE = {
    "torch.jit.load",
    "torch.export.load",
    "torch.hub.load",
    "torch.package.PackageImporter",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "dill.load",
    "dill.loads",
    "joblib.load",
    "marshal.load",
    "marshal.loads",
    "shelve.open",
    "yaml.load",
    "yaml.unsafe_load",
}
"""Loaders that run code from the file."""

SAFE_ONLY_WITH = {"torch.load": ("weights_only", "True"), "numpy.load": ("allow_pickle", "False")}
"""Loaders that run code from the file unless this argument is given."""

CLOCKS = {
    "time.time",
    "time.time_ns",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
}
"""A camera's wall clock jumps when the network sets it; `time.monotonic` and `time.perf_counter` do not."""

HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "litert_torch",
    "ai_edge_litert",
    "onnx",
    "onnxruntime",
    "scipy",
    "numpy",
    "optuna",
}
"""What `shrink --help` must not wait for."""

Complaints = list[tuple[int, str]]
"""(line, what is wrong there)."""


# --- the source, parsed once


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file, of every module of both packages."""
    files = [
        file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py")) if "build" not in file.parts
    ]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return {name.removesuffix(".__init__"): file for name, file in zip(names, files, strict=True)}


@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


def room_of(module: str) -> str:
    """`shrink.data.stream` -> `data`; the runner is one room."""
    first, *rest = module.split(".")
    return rest[0] if first == "shrink" and rest else first


def imported(tree: ast.Module, name: str, known: Mapping[str, object]) -> Iterator[tuple[int, str]]:
    """(line, module) for every import anywhere in the file, and for every string that names a known module.

    A function's imports and a registry of dotted names are dependencies like any other. The packages
    around an imported module are not counted.
    """
    parts = name.split(".")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                node.module or "" if not node.level else ".".join([*parts[: -node.level], *filter(None, [node.module])])
            )
            for alias in node.names:
                longer = f"{base}.{alias.name}"
                yield node.lineno, longer if longer in known else base
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            dotted = node.value.partition(":")[0]
            if dotted in known and dotted != name:
                yield node.lineno, dotted


def dependencies(name: str) -> set[str]:
    """The modules of both packages that a module imports."""
    return {other for _, other in imported(tree_of(name), name, modules()) if other in modules()}


def named(tree: ast.Module) -> Iterator[tuple[ast.expr, str]]:
    """Every `a.b.c` and every imported name in the file, with its full dotted name."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {
                a.asname or a.name.partition(".")[0]: a.name if a.asname else a.name.partition(".")[0]
                for a in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            head, *rest = ast.unparse(node).split(".")
            yield node, ".".join([aliases.get(head, head), *rest])


# --- the rules


def upward(tree: ast.Module, name: str, known: Mapping[str, object]) -> Complaints:
    """Imports that look up, or sideways between stages."""
    height = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    mine = room_of(name)
    if mine not in height:
        return [(1, f"the room {mine!r} stands on no floor: give it a place in FLOORS")]
    found: Complaints = []
    for line, other in imported(tree, name, known):
        theirs = room_of(other)
        if (
            other.partition(".")[0] not in PACKAGES
            or theirs == mine
            or theirs not in height
            or (mine, theirs) in EXCEPTIONS
        ):
            continue
        if height[theirs] > height[mine]:
            found.append((line, f"{mine} looks up to {theirs}"))
        elif height[theirs] == height[mine] != SHARING:
            found.append((line, f"{mine} imports {theirs}, which stands on the same floor"))
    return found


def foreign(tree: ast.Module, name: str, known: Mapping[str, object]) -> Complaints:
    """Imports in the runner of what a camera does not have."""
    allowed = RUNNER_MAY_IMPORT | sys.stdlib_module_names
    return [
        (line, f"the runner imports {other}")
        for line, other in imported(tree, name, known)
        if other.partition(".")[0] not in allowed
    ]


def prints(tree: ast.Module) -> Complaints:
    """Uses of `print`: a library answers, a command line writes."""
    return [(node.lineno, "print") for node, name in named(tree) if name in ("print", "builtins.print")]


WALL_CLOCK = "device_runner.clock"
"""The one module of the runner that may write down what time it is; nothing decides by it."""


def wall_clocks(tree: ast.Module) -> Complaints:
    return [(node.lineno, f"{name} jumps: use time.monotonic") for node, name in named(tree) if name in CLOCKS]


def unsafe_loaders(tree: ast.Module) -> Complaints:
    """Loaders that may run code from the file they read, called or passed on."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    given = {id(call.func): [(k.arg, ast.unparse(k.value)) for k in call.keywords] for call in calls}
    found: Complaints = []
    for node, name in named(tree):
        if name in UNSAFE:
            found.append((node.lineno, f"{name} runs code from the file"))
        elif name in SAFE_ONLY_WITH and SAFE_ONLY_WITH[name] not in given.get(id(node), []):
            found.append((node.lineno, f"{name} without {'='.join(SAFE_ONLY_WITH[name])}"))
    return found


def untyped(tree: ast.Module) -> Complaints:
    """Public functions and methods without the type of an argument or of the result."""
    return [
        (function.lineno, f"{function.name} does not say the type of {', '.join(missing)}")
        for function in _public_functions(tree.body)
        if (missing := _missing_types(function))
    ]


def _public_functions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _public_functions(node.body)


def _missing_types(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    spec = function.args
    every = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, *filter(None, (spec.vararg, spec.kwarg))]
    missing = [arg.arg for arg in every if arg.annotation is None and arg.arg not in ("self", "cls")]
    return missing if function.returns is not None else [*missing, "its result"]


def works_at_import(tree: ast.Module) -> Complaints:
    """Statements of a module that do something when it is imported, instead of naming something."""
    return [(node.lineno, f"runs at import: {ast.unparse(node)[:60]}") for node in tree.body if not _only_names(node)]


def _only_names(node: ast.stmt) -> bool:
    if isinstance(node, ast.If):
        return ast.unparse(node.test) in ("__name__ == '__main__'", "TYPE_CHECKING")
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign | ast.AnnAssign):
        calls = [n.func for n in ast.walk(node) if isinstance(n, ast.Call)]
        return not any(ast.unparse(call).rpartition(".")[2] in _READS for call in calls)
    names = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return isinstance(node, names)


_READS = {"open", "read_text", "read_bytes", "load", "loads", "getenv", "import_module", "run", "exists", "mkdir"}


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of names that reach each other, each sorted."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = list(graph[start])
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo.extend(graph.get(name, ()))
        return seen

    reach = {name: reached(name) for name in graph}
    groups = {frozenset(b for b in reach[a] if a in reach.get(b, ())) for a in graph if a in reach[a]}
    return sorted(sorted(group) for group in groups)


# --- the rules hold


def complaints(rule: Callable[[ast.Module], Complaints], prefix: str = "") -> list[str]:
    """What a rule says of every module, as `file:line: words`."""
    return [
        f"{file.relative_to(ROOT)}:{line}: {words}"
        for name, file in modules().items()
        if name.startswith(prefix) and not (rule is wall_clocks and name == WALL_CLOCK)
        for line, words in rule(tree_of(name))
    ]


def test_imports_look_only_down_and_stages_never_import_each_other():
    found = [
        f"{file.relative_to(ROOT)}:{line}: {words}"
        for name, file in modules().items()
        for line, words in upward(tree_of(name), name, modules())
    ]
    assert found == []


def test_every_exception_is_still_needed():
    used = {(room_of(name), room_of(other)) for name in modules() for other in dependencies(name)}
    assert [pair for pair in EXCEPTIONS if pair not in used] == []


def test_no_two_modules_import_each_other_not_even_inside_functions():
    assert circles({name: dependencies(name) - {name} for name in modules()}) == []


def test_no_two_rooms_import_each_other():
    graph: dict[str, set[str]] = {}
    for name in modules():
        graph.setdefault(room_of(name), set()).update(map(room_of, dependencies(name)))
    assert circles({room: others - {room} for room, others in graph.items()}) == []


def test_the_runner_needs_only_what_a_camera_has():
    runner = {name: file for name, file in modules().items() if name.startswith("device_runner")}
    assert [
        f"{name}:{line}: {words}" for name in runner for line, words in foreign(tree_of(name), name, modules())
    ] == []


@pytest.mark.parametrize(
    ("rule", "prefix"),
    [(prints, ""), (wall_clocks, "device_runner"), (unsafe_loaders, ""), (untyped, "")],
    ids=["no print", "no wall clock in the runner", "no loader that runs code", "public functions are typed"],
)
def test_every_module_keeps(rule: Callable[[ast.Module], Complaints], prefix: str):
    assert complaints(rule, prefix) == []


def test_importing_a_module_does_nothing():
    """But for the command line, whose import builds it, and what `python -m` runs."""
    found = complaints(works_at_import)
    assert [text for text in found if not text.startswith("shrink/cli.py:") and "/__main__.py:" not in text] == []


def test_the_scripts_use_no_loader_that_runs_code():
    scripts = [file for folder in ("recipes", "docs") for file in sorted((ROOT / folder).rglob("*.py"))]
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in scripts}
    assert [(str(file), line) for file, tree in trees.items() for line in unsafe_loaders(tree)] == []


# --- each rule notices what it is for


KNOWN = dict.fromkeys(("shrink.errors", "shrink.data.stream", "shrink.quantize", "shrink.verify.judge", "shrink.cli"))


@pytest.mark.parametrize(
    ("name", "source", "words"),
    [
        ("shrink.errors", "from shrink.verify import judge", "errors looks up to verify"),
        ("shrink.data.stream", "def f():\n    import shrink.cli", "data looks up to cli"),
        (
            "shrink.verify.judge",
            "from shrink import quantize",
            "verify imports quantize, which stands on the same floor",
        ),
        ("shrink.quantize.plan", "from ..verify.judge import judge", "quantize imports verify"),
        ("shrink.export.tflite", "READERS = {'onnx': 'shrink.verify.judge:judge'}", "export imports verify"),
        ("device_runner.store", "import shrink.errors", "device_runner looks up to errors"),
        ("shrink.compress", "", "give it a place in FLOORS"),
    ],
)
def test_an_import_in_the_wrong_direction_is_noticed(name: str, source: str, words: str):
    assert words in " ".join(text for _, text in upward(ast.parse(source), name, KNOWN))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("shrink.cli", "from shrink.verify import judge\nimport shrink.errors"),
        ("shrink.verify.judge", "from shrink.errors import nearest\nfrom device_runner.errors import Problem"),
        ("shrink.data.stream", "import torch\nfrom shrink import errors"),
        ("shrink.verify.judge", '"""Not an import: shrink.cli is named in a sentence."""'),
    ],
)
def test_an_import_in_the_right_direction_is_not(name: str, source: str):
    assert upward(ast.parse(source), name, KNOWN) == []


@pytest.mark.parametrize(
    "source", ["import torch", "def f():\n    from shrink.errors import Problem", "import scipy.stats"]
)
def test_a_library_that_a_camera_lacks_is_noticed(source: str):
    assert len(foreign(ast.parse(source), "device_runner.bundle", KNOWN)) == 1


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (prints, "def f():\n    print('hello')"),
        (prints, "show = print"),
        (wall_clocks, "import time\nstart = time.time()"),
        (wall_clocks, "from time import time as now\nstart = now()"),
        (wall_clocks, "from datetime import datetime, UTC\ndatetime.now(UTC)"),
        (wall_clocks, "import datetime as dt\ndt.datetime.now()"),
        (unsafe_loaders, "import torch\ntorch.load(f)"),
        (unsafe_loaders, "import torch\ntorch.load(f, weights_only=False)"),
        (unsafe_loaders, "import torch\ntorch.load(f, weights_only=careful)"),
        (unsafe_loaders, "import torch\ntorch.load(f, allow_pickle=False)"),
        (unsafe_loaders, "from torch import load\nread = load"),
        (unsafe_loaders, "import torch\ntorch.jit.load(f)"),
        (unsafe_loaders, "import torch\nprogram = torch.export.load(f)"),
        (unsafe_loaders, "import pickle as p\np.load(f)"),
        (unsafe_loaders, "from pickle import Unpickler\nclass Mine(Unpickler): ..."),
        (unsafe_loaders, "import numpy as np\nnp.load(f)"),
        (unsafe_loaders, "import numpy\nnumpy.load(f, allow_pickle=True)"),
        (unsafe_loaders, "import yaml\nyaml.load(f, yaml.FullLoader)"),
        (untyped, "def f(x) -> int: ..."),
        (untyped, "def f(x: int): ..."),
        (untyped, "class A:\n    def f(self, *args) -> int: ..."),
        (works_at_import, "import random\nrandom.seed(0)"),
        (works_at_import, "for x in range(3): y = x"),
        (works_at_import, "CONFIG = open('config.json').read()"),
        (works_at_import, "if 1 > 0:\n    import json"),
        (works_at_import, "try:\n    import torch\nexcept ImportError:\n    torch = None"),
    ],
)
def test_a_rule_notices_a_breach(rule: Callable[[ast.Module], Complaints], source: str):
    assert len(rule(ast.parse(source))) == 1


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (prints, "def f(console):\n    console.print('hello')"),
        (wall_clocks, "import time\nstart = time.monotonic()"),
        (unsafe_loaders, "import torch\ntorch.load(f, weights_only=True)"),
        (unsafe_loaders, "import numpy as np\nnp.load(f, allow_pickle=False)"),
        (unsafe_loaders, "import pickle\ntry: ...\nexcept pickle.UnpicklingError: ..."),
        (unsafe_loaders, "import safetensors.torch\nsafetensors.torch.load(f)"),
        (untyped, "def f(x: int, *, y: str = '') -> int:\n    def inner(z): ...\n    return x"),
        (untyped, "def _private(x): ..."),
        (works_at_import, '"""Words."""\nimport re\nNAME = re.compile("a")\nif __name__ == "__main__":\n    main()'),
    ],
)
def test_a_rule_lets_the_rest_be(rule: Callable[[ast.Module], Complaints], source: str):
    assert rule(ast.parse(source)) == []


def test_a_circle_is_noticed():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == [["b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == []


# --- what importing costs, in a fresh process


def loaded_after(code: str) -> set[str]:
    """The top-level packages that are imported once `code` has run in a new interpreter."""
    probe = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nsys.stderr.write(' '.join(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return {name.partition(".")[0] for name in run.stderr.split()}


@pytest.mark.parametrize(
    "code",
    [
        "import shrink.cli",
        "from shrink.cli import main; main(['--help'])",
        "from shrink.cli import main; main(['export', '--help'])",
        "from shrink.cli import main; main(['targets', 'list'])",
    ],
)
def test_help_waits_for_no_heavy_library(code: str):
    loaded = loaded_after(code)
    assert "typer" in loaded
    assert loaded & HEAVY == set()


def test_the_runner_loads_nothing_of_the_toolkit():
    loaded = loaded_after("import device_runner.commands, device_runner.engines.onnxruntime")
    assert {"device_runner", "onnxruntime"} <= loaded
    assert loaded & {"shrink", "torch"} == set()


def test_a_heavy_import_would_be_seen():
    assert "numpy" in loaded_after("import numpy")


# --- the names that others rely on


PUBLIC: Mapping[str, str] = {
    "device_runner.bundle": "Bundle open_bundle",
    "device_runner.classify": "Classifier",
    "device_runner.cli": "main build_parser",
    "device_runner.contract": "GOLDEN_NAME LABELS_NAME check",
    "device_runner.engines": "ENGINES FORMATS PACKAGES is_installed open_engine",
    "device_runner.engines.base": "Engine",
    "device_runner.errors": "BundleError EngineError ImageError Problem SelfTestError",
    "device_runner.golden": "Golden make_golden probe_image read_golden",
    "device_runner.manifest": (
        "MANIFEST_NAME SCHEMA Accuracy File Input Latency Leftover Manifest Output Preprocess TruthLabel dump parse"
    ),
    "device_runner.postprocess": "Answer confidences scores top_k",
    "device_runner.preprocess": "encode prepare tensor",
    "device_runner.selftest": "SelfTest selftest",
    "shrink": "__version__",
    "shrink.bench.host": "host",
    "shrink.bench.latency": "Ratio Samples interleave latency ratio",
    "shrink.cli": "app main",
    "shrink.data.checks": "CalibrationStats check_calibration check_labels",
    "shrink.data.images": "Images Parts",
    "shrink.data.sources": "BUILTIN KINDS read",
    "shrink.data.split": "Split load",
    "shrink.data.stream": "Batch SkipLog stream",
    "shrink.data.unpack": "unpack",
    "shrink.errors": (
        "ArtifactError CalibrationError CaptureError CheckpointError DataError DivergenceError LoweringError "
        "ModelError OutputError Problem RecipeError RequestError StageError nearest"
    ),
    "shrink.export.bundle": "write_bundle",
    "shrink.export.onnx": "to_onnx",
    "shrink.export.tflite": "to_tflite",
    "shrink.files": "appears_whole check_free",
    "shrink.graph.capture": "capture",
    "shrink.graph.lower": "RULES lower",
    "shrink.inspect.guard": "check inspect_untrusted",
    "shrink.inspect.truth": "Inspection inspect_bytes inspect_file",
    "shrink.models": "Model load",
    "shrink.pipeline": "STAGES export prune tune",
    "shrink.prune": "Pruned Settings run",
    "shrink.graph.store": "dump load",
    "shrink.progress": "Bars Lines Progress Quiet Stage progress_on",
    "shrink.quantize": "Chosen Cost Observed Plan Range Rung Scheme apply choose observe schemes simulation",
    "shrink.recipe": "ExportRecipe combine parse",
    "shrink.report.markdown": "render",
    "shrink.report.pareto": "Label Point frontier pareto standalone",
    "shrink.report.schema": "SCHEMA Report dump parse",
    "shrink.report.terminal": "show",
    "shrink.runs.pairing": "pair",
    "shrink.runs.predictions": "Answered Predictions answered dump parse",
    "shrink.search.run": "Asked export_winner search",
    "shrink.search.study": "Study read",
    "shrink.targets": "Target load names",
    "shrink.verify.answers": "Answers Candidate collect relative_error",
    "shrink.verify.judge": "check_answers judge overall",
    "shrink.tune": "Fitted Settings Training",
    "shrink.verify.statistics": "decide images_needed mcnemar_exact paired_interval proportion_interval",
}
"""Module -> names that other code may rely on. To take one away is a change for users: say so in CHANGELOG.md."""


def missing(module: str, names: str) -> list[str]:
    found = importlib.import_module(module)
    return [name for name in names.split() if not hasattr(found, name)]


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_there(module: str):
    assert missing(module, PUBLIC[module]) == []


def test_a_name_that_went_away_is_noticed():
    assert missing("shrink.errors", "nearest farthest") == ["farthest"]


def test_tests_lie_beside_their_room():
    rooms = {room for floor in FLOORS for room in floor}
    folders = {file.parent.name for file in (ROOT / "tests").rglob("test_*.py")}
    assert folders - rooms - {"tests", "benchmarks", "recipes"} == set()
