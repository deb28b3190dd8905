"""The package keeps the rules of docs/architecture.md: rooms import only from lower floors, nothing unpickles, ...

Every rule is a function of a folder with a package `avface` in it, which returns what breaks it. Each is tested twice:
on the repository, where it must find nothing, and on a small package in which the rule is broken.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = {
    "avface.errors": (0,),
    "avface.arrays": (0,),
    "avface.frame_times": (0,),
    "avface.open_head": (0,),
    "avface.files": (1,),
    "avface.threads": (1,),
    "avface.geometry": (1,),
    "avface.media": (1,),
    "avface.head": (2, 0),
    "avface.head.anatomy": (2, 1),
    "avface.head.open": (2, 2),
    "avface.head.open.outside": (2, 2),
    "avface.head.open.eyes": (2, 2),
    "avface.head.open.mouth": (2, 2),
    "avface.head.open.units": (2, 2),
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
    "avface.stages": (5,),
    "avface.pipeline": (6,),
    "avface.synthetic": (5, 3),
    "avface.synthetic.person": (5, 0),
    "avface.synthetic.performance": (5, 0),
    "avface.synthetic.rendering": (5, 1),
    "avface.synthetic.occlusion": (5, 2),
    "avface.synthetic.occlusion.occluders": (5, 2),
    "avface.data": (6,),
    "avface.training": (7, 4),
    "avface.training.loop": (7, 0),
    "avface.training.coarse": (7, 1),
    "avface.training.lips": (7, 2),
    "avface.training.detail": (7, 2),
    "avface.training.landmarks": (7, 2),
    "avface.training.acoustic": (7, 2),
    "avface.training.hearing": (7, 3),
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

READS_PICKLES = "avface/head/flame/pickle_reader.py"
"""The one file that may import pickle: its unpickler knows stand-ins for a few names and refuses all others."""


# Reading the package


def sources(root):
    return sorted((root / "avface").rglob("*.py"))


def module_name(path, root):
    parts = path.relative_to(root).with_suffix("").parts
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
    """Names that a file imports anywhere, in functions too, with their lines; not those for type checkers.

    `from a import b` gives a.b, whether b is a module or something that a defines.
    """
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
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def lower(there, here):
    """Whether a room lies below another: on a lower floor of the package, or of the room that both are in."""
    if house(there) != house(here):
        return FLOORS[there][0] < FLOORS[here][0]
    if there.startswith(f"{here}.") or here.startswith(f"{there}."):
        return FLOORS[there] <= FLOORS[here]
    return FLOORS[there] < FLOORS[here]


# Rules


def rooms_without_a_floor(root):
    folders = {module_name(path, root) for path in sources(root) if path.name == "__init__.py"}
    rooms = {room(module_name(path, root)) for path in sources(root)} | folders
    return sorted(rooms - {"avface"} - FLOORS.keys())


def floors_without_a_room(root):
    rooms = {room(module_name(path, root)) for path in sources(root)}
    return sorted(FLOORS.keys() - rooms)


def overfull_rooms(root):
    counts = {}
    for path in sources(root):
        if path.name != "__init__.py":
            name = room(module_name(path, root))
            counts[name] = counts.get(name, 0) + 1
    return {name: count for name, count in counts.items() if count > MOST_MODULES}


def upward_imports(root):
    found = []
    for path in sources(root):
        module = module_name(path, root)
        here = room(module)
        for target, line in imported(ast.parse(path.read_text()), module, path.name == "__init__.py"):
            there = room(target)
            # `avface` itself hands on names of rooms above; within the package only its version may be read
            if target.split(".")[0] != "avface" or here in (there, "avface") or here not in FLOORS:
                continue
            if there not in FLOORS:
                if target not in ("avface", "avface.__version__"):
                    found.append(f"{path.relative_to(root)}:{line}: {target} is in no room with a floor")
            elif not lower(there, here):
                floors = f"(floor {FLOORS[there]}, own floor {FLOORS[here]})"
                found.append(f"{path.relative_to(root)}:{line}: {module} imports {target} {floors}")
    return found


def import_circles(root):
    """Chains of modules that import each other while they load, imports inside functions left out."""
    modules = {module_name(path, root): path for path in sources(root)}
    graph = {}
    for module, path in modules.items():
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                node.body = []
        targets = set()
        for name, _ in imported(tree, module, path.name == "__init__.py"):
            while name and name not in modules:  # something that a module defines
                name = name.rpartition(".")[0]
            targets.add(name)
        graph[module] = targets - {"", module}
    found, done = [], set()

    def visit(module, trail):
        if module in trail:
            found.append(" -> ".join([*trail[trail.index(module) :], module]))
        elif module not in done:
            for target in sorted(graph[module]):
                visit(target, [*trail, module])
            done.add(module)

    for module in graph:
        visit(module, [])
    return found


def public(body, inside=""):
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield inside + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{inside}{node.name}.")


def undocumented(root):
    missing = []
    for path in sources(root):
        tree = ast.parse(path.read_text())
        if ast.get_docstring(tree) is None:
            missing.append(str(path.relative_to(root)))
        for name, node in public(tree.body):
            setter = any(ast.unparse(d).endswith((".setter", "overload")) for d in node.decorator_list)
            if ast.get_docstring(node) is None and not setter:
                missing.append(f"{path.relative_to(root)}:{node.lineno} {name}")
    return missing


def drawers_for_odds_and_ends(root):
    names = {
        part for path in sources(root) for part in path.relative_to(root / "avface").with_suffix("").parts
    }
    return sorted(names & {"utils", "util", "helpers", "misc", "common"})


PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
"""Modules whose files can run code when they are read."""
FORBIDDEN = {
    "asyncio.create_subprocess_shell",
    "builtins.eval",
    "builtins.exec",
    "eval",
    "exec",
    "os.popen",
    "os.system",
    "pandas.read_pickle",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "torch.hub.load",
    "yaml.full_load",
    "yaml.full_load_all",
    "yaml.load",
    "yaml.load_all",
    "yaml.unsafe_load",
    "yaml.unsafe_load_all",
}
"""What runs a shell, or code from text or from a file."""
SAFE_WITH = {"numpy.load": ("allow_pickle", False), "torch.load": ("weights_only", True)}
"""Readers that must be called by name with this keyword and value written out."""
SWITCHES = {"allow_pickle": False, "shell": False, "weights_only": True}
"""The only value that these options may have, in calls of anything and as keys of options."""


def unsafe_lines(source, where="source", reads_pickles=False):
    """Places of a source where it could unpickle or run a shell, however that is spelled."""
    tree = ast.parse(source)
    names = {}
    """What a name in the file stands for: np -> numpy, load -> torch.load."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}

    def meant(node):
        """What an expression such as np.load stands for: numpy.load."""
        if isinstance(node, ast.Name):
            return names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            base = meant(node.value)
            return f"{base}.{node.attr}" if base else None
        literal = isinstance(node, ast.Call) and [a.value for a in node.args if isinstance(a, ast.Constant)]
        if literal and meant(node.func) == "getattr" and len(literal) == 1:
            return f"{meant(node.args[0])}.{literal[0]}"
        if literal and meant(node.func) in ("importlib.import_module", "__import__"):
            return str(literal[0])
        return None

    def wrong(key, value):
        return key in SWITCHES and not (isinstance(value, ast.Constant) and value.value is SWITCHES[key])

    found, called = [], set()
    for node in ast.walk(tree):
        problem = None
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = {alias.name for alias in node.names} if isinstance(node, ast.Import) else {node.module}
            harmless = {alias.name for alias in node.names} <= {"UnpicklingError"}
            taken = {str(module).split(".")[0] for module in modules} & PICKLES
            if taken and not reads_pickles and not (isinstance(node, ast.ImportFrom) and harmless):
                problem = f"imports {taken.pop()}"
            elif isinstance(node, ast.ImportFrom):
                forbidden = {f"{node.module}.{alias.name}" for alias in node.names} & FORBIDDEN
                problem = f"imports {forbidden.pop()}" if forbidden else None
        elif isinstance(node, ast.keyword) and node.arg and wrong(node.arg, node.value):
            problem = f"{node.arg}={ast.unparse(node.value)}"
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and wrong(key.value, value):
                    problem = f"{key.value}: {ast.unparse(value)}"
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                key = target.slice if isinstance(target, ast.Subscript) else None
                if isinstance(key, ast.Constant) and wrong(key.value, node.value):
                    problem = f"[{key.value}] = {ast.unparse(node.value)}"
        if isinstance(node, ast.Call):
            name = meant(node.func)
            if name in SAFE_WITH:
                called.add(id(node.func))
                keyword, _ = SAFE_WITH[name]
                if keyword not in {item.arg for item in node.keywords}:
                    problem = f"{name} without {keyword}"
        if isinstance(node, ast.Name | ast.Attribute | ast.Call):
            name = meant(node)
            loaded = not isinstance(node, ast.Name) or isinstance(node.ctx, ast.Load)
            if name in FORBIDDEN and loaded:
                problem = name
            elif name in SAFE_WITH and loaded and id(node) not in called:
                problem = f"{name} handed on"
            elif name in PICKLES and isinstance(node, ast.Call):
                problem = f"imports {name}"
        if problem:
            found.append(f"{where}:{getattr(node, 'lineno', 0)}: {problem}")
    return found


def unsafe_places(root):
    found = []
    for path in sources(root):
        where = path.relative_to(root).as_posix()
        found += unsafe_lines(path.read_text(), where, reads_pickles=where == READS_PICKLES)
    return found


def differences_from_the_page(root):
    """Rooms that docs/architecture.md lacks or draws on another floor, and rooms of the page that aren't there."""
    rows = [
        [cell.strip() for cell in line.strip("|\n ").split("|")]
        for line in (root / "docs" / "architecture.md").read_text().splitlines()
        if line.startswith("| ") and line[2].isdigit()
    ]
    drawn = {
        name.strip("` /").removesuffix(".py").replace("/", "."): tuple(map(int, row[0].split(".")))
        for row in rows
        for name in row[1].split(",")
    }
    standing = {room(module_name(path, root)) for path in sources(root)} - {"avface", "avface.__main__"}
    floors = {name.removeprefix("avface."): FLOORS.get(name) for name in standing}
    return sorted(name for name in drawn.keys() | floors.keys() if drawn.get(name) != floors.get(name))


RULES = (
    rooms_without_a_floor,
    floors_without_a_room,
    overfull_rooms,
    upward_imports,
    import_circles,
    undocumented,
    drawers_for_odds_and_ends,
    unsafe_places,
    differences_from_the_page,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rules(rule):
    found = rule(ROOT)
    assert not found, "\n".join(found if isinstance(found, list) else map(str, found.items()))


# Each rule finds what breaks it


@pytest.fixture
def package(tmp_path):
    """Write files of a package, by path within avface/; folders get an __init__.py."""

    def write(**files):
        for name, text in {"": "", **files}.items():
            path = tmp_path / "avface" / f"{name.replace('__', '/')}.py" if name else tmp_path / "avface"
            for folder in reversed(path.parents if name else (path,)):
                if folder.is_relative_to(tmp_path / "avface"):
                    folder.mkdir(exist_ok=True)
                    if not (folder / "__init__.py").exists():
                        (folder / "__init__.py").write_text('"""Room."""\n')
            if name:
                path.write_text(text)
        return tmp_path

    return write


def test_a_room_that_no_floor_is_given_is_found(package):
    root = package(attic__box="", head__attic__box="", media__clip="")
    assert rooms_without_a_floor(root) == ["avface.attic", "avface.head.attic"]
    assert "avface.cli" in floors_without_a_room(root) and "avface.media" not in floors_without_a_room(root)


def test_a_room_with_too_many_modules_is_found(package):
    files = {f"networks__lips__m{number}": "" for number in range(MOST_MODULES + 1)}
    files |= {f"networks__m{number}": "" for number in range(MOST_MODULES)}
    assert overfull_rooms(package(**files)) == {"avface.networks.lips": MOST_MODULES + 1}


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("head__embedding", "import avface.cli"),
        ("head__embedding", "def late():\n    from avface.export import gltf"),
        ("head__embedding", "from avface import solve"),
        ("head__embedding", "from avface import reconstruct"),
        ("head__embedding", "from ..viewer import page"),
        ("head__embedding", "import avface.viewer.page as page"),
        ("tracking__track", "from avface.speech import acoustic"),
        ("media__clip", "from avface.geometry.camera import Camera"),
        ("head__model", "from avface.head.open.builder import build"),
        ("head__model", "from .open import builder"),
        ("head__flame__model", "from avface.head.open.builder import build"),
        ("networks__coarse__model", "from avface.networks.lips.network import LipsNetwork"),
        ("networks__lips__network", "from avface.networks.detail import network"),
        ("networks__frames", "from avface.networks.coarse import model"),
        ("solve__linear__banded", "from avface.solve.priors import prior"),
        ("synthetic__person__skin", "from avface.synthetic.clips import synthesize"),
        ("training__loop__trainer", "from avface.training.coarse import recipes"),
        ("evaluation__metrics", "from avface.evaluation.studies import lips"),
    ],
)
def test_an_import_from_the_same_or_a_higher_floor_is_found(package, module, statement):
    found = upward_imports(package(**{module: statement}))
    assert len(found) == 1 and found[0].startswith(f"avface/{module.replace('__', '/')}.py:"), found


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("head__embedding", "if TYPE_CHECKING:\n    import avface.cli"),
        ("head__embedding", "from . import model\nfrom ..media import Clip\nfrom avface import __version__"),
        ("head__open__builder", "from avface.head.model import HeadModel\nfrom avface.head import load_head"),
        ("networks__lips__network", "from avface.networks.coarse.model import CoarseNetworks"),
        ("solve__solver", "from avface.solve.linear.banded import solve\nimport numpy"),
        ("evaluation__studies__lips", "from avface.evaluation.metrics import nme"),
    ],
)
def test_an_import_from_a_lower_floor_or_for_type_checkers_is_none(package, module, statement):
    assert upward_imports(package(**{module: statement})) == []


def test_modules_that_import_each_other_are_found(package):
    root = package(
        head__a="from avface.head.b import x",
        head__b="from . import c",
        head__c="import avface.head.a\nfrom avface.media.d import y",
        media__d="def late():\n    from avface.media.e import z",
        media__e="from avface.media.d import y",
    )
    assert import_circles(root) == ["avface.head.a -> avface.head.b -> avface.head.c -> avface.head.a"]


def test_what_lacks_a_docstring_is_found(package):
    source = '"""Here."""\nclass Told:\n    """Yes."""\n    def method(self): ...\n    def _own(self): ...\n'
    root = package(media__a="x = 1", media__b=source)
    assert undocumented(root) == ["avface/media/a.py", "avface/media/b.py:4 Told.method"]


def test_a_module_for_odds_and_ends_is_found(package):
    assert drawers_for_odds_and_ends(package(media__utils="", head__common__a="")) == ["common", "utils"]


def test_a_page_that_differs_from_the_package_is_found(package):
    root = package(media__clip="", head__model="", files="", head__open__builder="")
    (root / "docs").mkdir()
    page = "| 1 | `media/` | x |\n| 2.2 | `head/`, `head/open/` | x |\n| 9 | `attic/` | x |\n| 1 | `files.py` | x |\n"
    (root / "docs" / "architecture.md").write_text(page)
    assert differences_from_the_page(root) == ["attic", "head"]


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "import os, _pickle",
        "from pickle import loads",
        "from pickle import UnpicklingError, load",
        "import joblib",
        "import marshal",
        "from shelve import open",
        "import dill.settings",
        "import importlib; importlib.import_module('pickle')",
        "__import__('marshal')",
        "import torch; torch.load(path)",
        "import torch; torch.load(path, weights_only=False)",
        "import torch; torch.load(path, weights_only=trusted)",
        "import torch; torch.load(path, **options)",
        "import torch as t; t.load(path)",
        "from torch import load as read; read(path)",
        "import torch; map(torch.load, paths)",
        "import torch; read = torch.load",
        "import torch; getattr(torch, 'load')(path)",
        "import torch; torch.hub.load('a/b', 'c')",
        "options = {'weights_only': False}",
        "options = dict(weights_only=0)",
        "options['weights_only'] = False",
        "import numpy as np; np.load(path)",
        "import numpy; numpy.load(path, allow_pickle=True)",
        "import numpy as np; np.load(path, None, True)",
        "import numpy as np; np.load(path, allow_pickle=1)",
        "from numpy import load; load(path)",
        "def read(path):\n    import numpy as np\n    return np.load(path)",
        "import numpy as np; np.save(path, a, allow_pickle=True)",
        "import pandas as pd; pd.read_pickle(path)",
        "import yaml; yaml.load(text)",
        "import yaml; yaml.load(text, Loader=yaml.SafeLoader)",
        "from yaml import unsafe_load",
        "from yaml import unsafe_load\nunsafe_load(text)",
        "import subprocess; subprocess.run(words, shell=True)",
        "import subprocess; subprocess.Popen(words, shell=1)",
        "from subprocess import run; run(words, shell=flag)",
        "import subprocess; subprocess.run(words, **{'shell': True})",
        "import subprocess; subprocess.getoutput(words)",
        "from subprocess import getstatusoutput as get; get(words)",
        "import asyncio; asyncio.create_subprocess_shell(words)",
        "import os; os.system(words)",
        "import os; os.popen(words)",
        "from os import system; system(words)",
        "eval(text)",
        "import builtins; builtins.exec(text)",
    ],
)
def test_what_unpickles_or_runs_a_shell_is_found(source):
    assert unsafe_lines(source)


@pytest.mark.parametrize(
    "source",
    [
        "from pickle import UnpicklingError",
        "import torch; torch.load(path, map_location='cpu', weights_only=True)",
        "import numpy as np; np.load(path, allow_pickle=False)",
        "import yaml; yaml.safe_load(text)",
        "import subprocess; subprocess.run(words, shell=False)",
        "import subprocess; subprocess.run(words, check=True)",
        "network.eval(); json.load(file); Capture.load(path); model.load(path)",
        "rows = {'shell': False}",
    ],
)
def test_what_is_harmless_is_not_taken_for_unpickling_or_a_shell(source):
    assert unsafe_lines(source) == []


def test_only_the_file_for_it_may_import_pickle(package):
    root = package(head__flame__pickle_reader="import pickle", head__flame__model="import pickle")
    assert unsafe_places(root) == ["avface/head/flame/model.py:1: imports pickle"]


# What imports load


def loaded(statement, names):
    code = f"import sys; {statement}; print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


@pytest.mark.parametrize("statement", ["import avface", "import avface.errors"])
def test_importing_avface_loads_nothing_heavy(statement):
    heavy = ["torch", "numpy", "mediapipe", "av", "pxr", "k3d", "pygltflib", "scipy", "tyro", "rich", "roma"]
    assert loaded(statement, heavy) == "[]"
    assert loaded(f"{statement}; import numpy", heavy) == "['numpy']"


def test_captures_and_exporters_load_without_tracker_and_viewers():
    heavy = ["mediapipe", "pxr", "k3d", "pygltflib", "anny"]
    statement = "import avface.capture, avface.solve, avface.head, avface.export.arkit"
    assert loaded(statement, heavy) == "[]"
