"""The rules of the house (CONTRIBUTING.md), held to by machine."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from rerankdistill import cards, kinds
from rerankdistill.index.build import options_of, read_card
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.card import load_pipeline
from rerankdistill.pipeline.soundness import check_card
from rerankdistill.pipeline.sweep import expand, load_sweep
from rerankdistill.scores.card import load_members, load_teacher

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rerankdistill"
GROUND = {"errors", "types", "contracts", "kinds", "cards", "artifacts", "encoding", "lexical", "devices"}
GROUND |= {"appended", "codebooks", "packed", "prompting", "representations"}
ROOMS = {"collections", "queries", "index", "runs", "candidates", "scores", "examples", "losses", "students"}
ROOMS |= {"evaluation"}
JOINERS = {"pipeline", "serving"}
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ["torch", "faiss", "numba", "transformers", "sentence_transformers", "numpy", "scipy", "pandas"]
HEAVY += ["ranx", "pyarrow", "ir_datasets", "bm25s", "pydantic", "rich"]


def floor_of(module: str) -> str:
    """``rooms.part`` of ``rerankdistill.rooms.part``: its first name below the package; empty for the package."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imported(path: Path) -> set[str]:
    """Every module of the package that a file imports, wherever in the file it does so."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found.add(node.module or "")
            if node.module == "rerankdistill":
                names = {alias.name for alias in node.names}
                found |= {
                    f"rerankdistill.{n}" for n in names if (PACKAGE / n).is_dir() or (PACKAGE / f"{n}.py").is_file()
                }
    return {name for name in found if name == "rerankdistill" or name.startswith("rerankdistill.")}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def tracked() -> list[Path]:
    """The project's own files: git's list, or everything in an unpacked source distribution."""
    done = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [path for name in done.stdout.splitlines() if (path := ROOT / name).is_file()]


# Rule 1: imports go down.


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_an_import_that_goes_up_or_across_is_found_lazy_ones_too(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    targets = {floor_of(module) for module in imported(path)} - {own, ""}
    if own in GROUND | ROOMS:
        allowed = GROUND
    elif own in JOINERS:
        allowed = GROUND | ROOMS
    elif own in ("cli", "__main__"):
        allowed = GROUND | ROOMS | JOINERS | {"cli"}
    else:
        assert own == "__init__", f"{own} belongs to no floor: add it to the house or to a room"
        allowed = {"errors"}
    assert targets <= allowed, f"{named(path)} imports {sorted(targets - allowed)}"


def test_the_ground_floor_has_no_circles():
    graph = {name: {floor_of(m) for m in imported(PACKAGE / f"{name}.py")} - {name, ""} for name in GROUND}
    done: set[str] = set()
    while ready := [name for name, needs in graph.items() if name not in done and needs <= done]:
        done |= set(ready)
    assert done == GROUND, f"these import each other: {sorted(GROUND - done)}"


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_kinds_are_opened_only_where_rooms_are_joined(path):
    floor = path.relative_to(PACKAGE).parts[0]
    if floor in JOINERS | {"cli", "kinds.py"}:
        return
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    names = {getattr(call.func, "id", getattr(call.func, "attr", "")) for call in calls}
    assert not names & {"open_kind", "import_module", "__import__"}


# Rule 2: the file's name is the kind's name.


@pytest.mark.parametrize("room", kinds.ROOMS)
def test_a_file_that_is_no_kind_is_not_offered_as_one(room):
    folder = PACKAGE.joinpath(*kinds.ROOMS[room].split(".")[1:])
    files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")} - kinds.NOT_KINDS
    assert set(kinds.names(room)) == files
    for name in files:
        tree = ast.parse((folder / f"{name}.py").read_text("utf-8"))
        classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
        aliases = [t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)]
        assert "Kind" in classes + aliases, f"{room}/{name}.py has no class Kind"


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_no_class_is_chosen_by_a_piece_of_a_models_name(path):
    """``if "gpt" in model_name`` gives a model called my-gpt-free-reranker the wrong class."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Compare) or not any(isinstance(op, ast.In) for op in node.ops):
            continue
        right = node.comparators[-1]
        name = getattr(right, "id", getattr(right, "attr", ""))
        literal = isinstance(node.left, ast.Constant) and isinstance(node.left.value, str) and node.left.value.isalnum()
        assert not (literal and name in {"model", "model_name", "name", "kind", "loss"}), f"{named(path)}:{node.lineno}"


# Rule 3: cards outside, code inside.


@pytest.mark.parametrize("shelf", ["teachers", "indexes"])
def test_a_shelf_holds_cards_and_a_readme_alone(shelf):
    found = {path.name for path in (ROOT / shelf).rglob("*") if "__pycache__" not in path.parts}
    odd = {name for name in found if not name.endswith(".toml")} - {"README.md"}
    assert "README.md" in found
    assert not odd


@pytest.mark.parametrize("name", cards.list_cards("teachers"))
def test_every_shipped_teacher_card_is_good(name):
    card = load_teacher(name)
    assert card.name == name, "a card's name is its file's"
    for member in load_members(name):
        kind = open_kind("scores", member.kind)
        cards.parse(kind.Options, member.options, name)


@pytest.mark.parametrize("name", cards.list_cards("indexes"))
def test_every_shipped_index_card_is_good(name):
    card = read_card(name)
    if card.kind == "lucene":
        pytest.importorskip("pyserini", reason="pyserini is not installed: pip install 'rerankdistill[lucene]'")
    options_of(card, open_kind("index", card.kind))


@pytest.mark.parametrize("name", cards.list_cards("pipelines"))
def test_every_shipped_pipeline_is_good(name):
    card = load_pipeline(name)
    assert card.name == Path(name).name
    check_card(card)


@pytest.mark.parametrize("name", cards.list_cards("sweeps"))
def test_every_shipped_sweep_is_good(name):
    sweep = load_sweep(name)
    assert sweep.name == name
    whole = expand(sweep)
    assert len(whole.students) == len(sweep.objectives) * max(1, len(sweep.students)) * max(1, len(sweep.teachers))
    check_card(whole)


def test_every_shipped_card_is_in_the_wheel():
    included = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    places = included["force-include"]
    assert places["teachers"] == "rerankdistill/shipped/teachers"
    assert places["indexes"] == "rerankdistill/shipped/indexes"
    wanted = {
        f"scripts/{path.name}": f"rerankdistill/shipped/pipelines/{path.name}"
        for path in (ROOT / "scripts").glob("*.toml")
    }
    wanted |= {f"scripts/{shelf}": f"rerankdistill/shipped/{shelf}" for shelf in ("recipes", "sweeps", "styles")}
    assert {key: place for key, place in places.items() if key.startswith("scripts/")} == wanted


# Rule 4 is tests/test_artifacts.py.

# The air to build in.


@pytest.mark.parametrize("path", [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))], ids=named)
def test_no_file_is_too_long_to_be_read_in_one_sitting(path):
    assert len(path.read_text("utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", [p for p in MODULES if "cli" not in p.relative_to(PACKAGE).parts], ids=named)
def test_nothing_below_the_command_line_prints_or_configures_logging(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            assert getattr(node.func, "id", "") != "print", f"{named(path)}:{node.lineno}"
            assert getattr(node.func, "attr", "") != "basicConfig", f"{named(path)}:{node.lineno}"


def test_no_module_is_called_after_nothing():
    assert not [named(path) for path in MODULES if path.stem in {"utils", "util", "helpers", "misc", "common"}]


def test_types_are_shipped():
    assert (PACKAGE / "py.typed").is_file()


def test_no_path_of_a_machine_and_no_registry_is_in_a_file():
    """``/home/me/data`` in a script works on one machine; a registry's host in a file overrides the user's own."""
    machine = re.compile(r"(?<![\w.])/(?:home|root|Users|tmp|mnt|work)/\w")
    registry = re.compile(r"https?://[\w.:-]*(?:pypi|pythonhosted|pytorch\.org/whl|/simple\b)|--(?:extra-)?index-url")
    faults = []
    for path in tracked():
        if path == Path(__file__) or path.suffix in {".json", ".gz", ".png"}:
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if machine.search(line) or registry.search(line):
                faults.append(f"{named(path)}:{number}: {line.strip()[:80]}")
    assert not faults, "\n".join(faults)


def test_constraints_pin_every_dependency_exactly():
    lines = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line and line[0] != "#"]
    pattern = re.compile(r"[\w.-]+==[\w.]+(; .*)?")
    assert all(pattern.fullmatch(line) for line in lines), "no paths, no hosts, no local versions"
    pinned = {re.split(r"==", line)[0].lower().replace("_", "-") for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(each for name, extra in extras.items() if name != "gpu" for each in extra)]
    missing = {re.split(r"[<>=\[;]", each)[0].strip().lower().replace("_", "-") for each in wanted} - pinned
    assert not missing - {"rerankdistill"}, "an extra may name others of its own"


@pytest.mark.parametrize(
    "command", [["-c", "import rerankdistill"], ["-m", "rerankdistill", "--help"], ["-m", "rerankdistill", "--version"]]
)
def test_the_first_contact_is_not_half_a_minute_of_imports(command):
    probe = (
        "import sys\n"
        "sys.argv = ['rerankdistill', *sys.argv[1:]]\n"
        "import rerankdistill\n"
        "if len(sys.argv) > 1:\n"
        "    from rerankdistill.cli.app import main\n"
        "    try: main()\n"
        "    except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    arguments = command[2:]
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", probe, *arguments], capture_output=True, text=True, env=env)
    assert done.stderr.strip() == "[]", done.stderr
    best = min(_seconds(command) for _ in range(5))
    assert best < 0.5


def _seconds(command: list[str]) -> float:
    """Processor time of a fresh process, which a busy machine lengthens less than the clock."""
    before = os.times()
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], capture_output=True, check=True)
    wall = time.perf_counter() - began
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return min(wall, used or wall)
