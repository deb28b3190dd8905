"""The house stands as docs/architecture.md draws it: rooms import only from lower floors."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "avface"

FLOORS = {
    "avface.errors": (0,),
    "avface.arrays": (0,),
    "avface.files": (1,),
    "avface.threads": (1,),
    "avface.geometry": (1,),
    "avface.media": (1,),
    "avface.head": (2, 0),
    "avface.head.open": (2, 1),
    "avface.head.flame": (2, 1),
    "avface.head.skin": (2, 1),
    "avface.tracking": (2,),
    "avface.speech": (2,),
    "avface.networks": (3, 0),
    "avface.networks.coarse": (3, 1),
    "avface.networks.coarse.losses": (3, 1),
    "avface.networks.lips": (3, 2),
    "avface.networks.detail": (3, 2),
    "avface.networks.fusion": (3, 2),
    "avface.capture": (4,),
    "avface.solve": (4, 1),
    "avface.solve.linear": (4, 0),
    "avface.pipeline": (5,),
    "avface.synthetic": (5, 3),
    "avface.synthetic.person": (5, 0),
    "avface.synthetic.performance": (5, 0),
    "avface.synthetic.rendering": (5, 1),
    "avface.synthetic.occlusion": (5, 2),
    "avface.data": (6,),
    "avface.training": (7, 3),
    "avface.training.loop": (7, 0),
    "avface.training.coarse": (7, 1),
    "avface.training.lips": (7, 2),
    "avface.training.detail": (7, 2),
    "avface.training.landmarks": (7, 2),
    "avface.training.acoustic": (7, 2),
    "avface.export": (8,),
    "avface.viewer": (8,),
    "avface.evaluation": (8, 0),
    "avface.evaluation.studies": (8, 1),
    "avface.cli": (9,),
    "avface.__main__": (10,),
}
"""Floor of every room; rooms within a room have sub-floors of their own, counted from 0 at the bottom. `avface` itself
only hands on names (and its version, which anyone may read)."""

MOST_MODULES = 16
"""In a room, not counting __init__.py and the rooms within it."""


def sources():
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def house(module):
    """The room of the first order that a module is in: avface.networks of avface.networks.lips.network."""
    return ".".join(module.split(".")[:2])


def room(module):
    """The innermost room that a module is in."""
    parts = module.split(".")
    within = [".".join(parts[:count]) for count in range(len(parts), 1, -1)]
    return next((name for name in within if name in FLOORS), house(module))


def imported(tree, module, is_package):
    """Modules of avface that a file imports anywhere, in functions too; not those for type checkers."""
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".") if is_package else module.split(".")[:-1]
                above = above[: len(above) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for (
                alias
            ) in node.names:  # `from avface import capture` imports a room, `from avface import Capture` not
                inner = f"{base}.{alias.name}"
                yield (inner if inner in FLOORS or house(inner) in FLOORS else base), node.lineno


def dependencies():
    for path in sources():
        module = module_name(path)
        tree = ast.parse(path.read_text(), str(path))
        for target, line in imported(tree, module, path.name == "__init__.py"):
            if target.split(".")[0] == "avface":
                yield module, target, f"{path.relative_to(ROOT)}:{line}"


def test_every_room_has_a_floor():
    folders = {module_name(path) for path in sources() if path.name == "__init__.py"}
    rooms = {room(module_name(path)) for path in sources()} | folders - {"avface"}

    assert rooms - {"avface"} <= FLOORS.keys(), f"rooms without a floor: {sorted(rooms - FLOORS.keys())}"


def test_rooms_are_of_human_size():
    counts = {}
    for path in sources():
        if path.name != "__init__.py":
            name = room(module_name(path))
            counts[name] = counts.get(name, 0) + 1

    assert {name: count for name, count in counts.items() if count > MOST_MODULES} == {}


def lower(there, here):
    """Whether a room lies below another: on a lower floor of the house, or of the room that both are in."""
    if house(there) != house(here):
        return FLOORS[there][0] < FLOORS[here][0]
    if there.startswith(f"{here}.") or here.startswith(f"{there}."):
        return FLOORS[there] <= FLOORS[here]
    return FLOORS[there] < FLOORS[here]


def test_rooms_import_only_from_lower_floors():
    found = []
    for module, target, where in dependencies():
        here, there = room(module), room(target)
        if here in (there, "avface") or there == "avface":
            continue
        if not lower(there, here):
            found.append(f"{where}: {module} (floor {FLOORS[here]}) imports {target} (floor {FLOORS[there]})")
    assert not found, "\n".join(found)


def test_the_lookout_for_upward_imports_sees_all_kinds():
    source = """
if TYPE_CHECKING:
    import avface.cli
def late():
    from avface.export import gltf
from avface import solve
from . import model
from ..media import Clip
import avface.viewer.page as page
from avface import __version__
"""
    found = {target for target, _ in imported(ast.parse(source), "avface.head.embedding", False)}

    rooms = {room(target) for target in found}
    assert rooms == {
        "avface.export",
        "avface.solve",
        "avface.head",
        "avface.media",
        "avface.viewer",
        "avface",
    }


def test_no_two_modules_import_each_other_while_they_load():
    graph = {}
    for path in sources():
        module = module_name(path)
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):  # what runs at import: nothing inside functions
            if isinstance(node, ast.FunctionDef):
                node.body = []
        targets = {t for t, _ in imported(tree, module, path.name == "__init__.py")}
        graph[module] = {t for t in targets if t.startswith("avface.")}
    done = set()

    def visit(module, trail):
        assert module not in trail, " -> ".join([*trail, module])
        if module in done or module not in graph:
            return
        for target in graph[module] - {module}:
            visit(target, [*trail, module])
        done.add(module)

    for module in graph:
        visit(module, [])


@pytest.mark.parametrize("statement", ["import avface", "import avface.errors"])
def test_importing_avface_loads_nothing_heavy(statement):
    heavy = ["torch", "numpy", "mediapipe", "av", "pxr", "k3d", "pygltflib", "scipy", "tyro", "rich", "roma"]
    check = f"import sys; {statement}; print([name for name in {heavy} if name in sys.modules])"

    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert result.stdout.strip() == "[]"


def test_captures_and_exporters_load_without_tracker_and_viewers():
    heavy = ["mediapipe", "pxr", "k3d", "pygltflib", "anny"]
    check = (
        "import sys, avface.capture, avface.solve, avface.head, avface.export.arkit;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )

    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert result.stdout.strip() == "[]"


def public(body, inside=""):
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield inside + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{inside}{node.name}.")


def test_everything_public_has_a_docstring():
    missing = []
    for path in sources():
        tree = ast.parse(path.read_text())
        if ast.get_docstring(tree) is None:
            missing.append(str(path.relative_to(ROOT)))
        for name, node in public(tree.body):
            setter = any(ast.unparse(d).endswith((".setter", "overload")) for d in node.decorator_list)
            if ast.get_docstring(node) is None and not setter:
                missing.append(f"{path.relative_to(ROOT)}:{node.lineno} {name}")
    assert not missing, "\n".join(missing)


def test_no_room_is_a_drawer_for_odds_and_ends():
    names = {part for path in sources() for part in path.relative_to(PACKAGE).with_suffix("").parts}

    assert not names & {"utils", "util", "helpers", "misc", "common"}


READS_PICKLES = "avface/head/flame/pickle_reader.py"
"""The one file that may: its unpickler knows stand-ins for a few names and refuses all others."""


def test_nothing_unpickles_or_runs_a_shell():
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.keyword):
                on = isinstance(node.value, ast.Constant) and node.value.value is True
                assert not (node.arg in ("allow_pickle", "shell") and on), where
            pickles = {"pickle", "_pickle", "cPickle", "dill", "joblib"}
            if isinstance(node, ast.Import) and path.relative_to(ROOT).as_posix() != READS_PICKLES:
                assert not {alias.name for alias in node.names} & pickles, where
            if isinstance(node, ast.ImportFrom) and node.module in pickles:
                assert {alias.name for alias in node.names} <= {"UnpicklingError"}, where
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("os.system", "eval", "exec"), where


def test_the_architecture_page_lists_every_room_on_its_floor():
    rows = [
        [cell.strip() for cell in line.strip("|\n ").split("|")]
        for line in (ROOT / "docs" / "architecture.md").read_text().splitlines()
        if line.startswith("| ") and line[2].isdigit()
    ]
    drawn = {
        name.strip("` /"): tuple(map(int, row[0].split("."))) for row in rows for name in row[1].split(",")
    }

    standing = {room(module_name(path)) for path in sources()} - {"avface", "avface.__main__"}
    for name in standing:
        short = name.removeprefix("avface.").replace(".", "/")
        key = short if short in drawn else f"{short}.py"
        assert drawn.get(key) == FLOORS[name], f"{name} in docs/architecture.md"
