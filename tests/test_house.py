"""The house rules hold: imports go one way, heavy libraries stay where they belong, and everything stays small.

All of it is read from the syntax trees, so that imports inside functions and for type checkers count as well.
"""

import ast
import graphlib
import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_FUNCTION, MAX_MODULE = 60, 400

# What each part of the package may know of the others; entry points may know everything but one another.
LEAVES = ("architecture", "data", "training", "cost")
BELOW = {"launching", "control_groups", "user_cache"}  # what leaves may know
WORDS = {"counted"}  # what everybody may know
MAY_IMPORT = {
    **{leaf: set[str]() for leaf in LEAVES},
    "launching": set(),
    "control_groups": set(),
    "counted": set(),
    "user_cache": set(),
    "imports": set(),
    "data": {"control_groups", "user_cache"},
    "training": {"launching"},
    "cost": {"launching", "user_cache"},
    "evaluation": {"cost"},
    "ablation": {"evaluation", "search"},
    "faults": set(),
    "candidate": {*LEAVES, "evaluation"},
    "search": {"cost", "evaluation", "faults"},
    "cluster": {"control_groups", "cost", "evaluation", "faults"},
    "reporting": {"ablation", "evaluation", "search"},
    "tracking": {"cost", "evaluation", "search"},
    "schema": {*LEAVES, "ablation", "candidate", "cluster", "search", "tracking"},
    "config": {"architecture", "schema", "search"},
    "definition": {"ablation", "data", "schema"},
    "speeds": {"architecture", "candidate", "cost", "data"},
    "beginning": {"architecture", "config", "data", "definition", "places", "schema", "search", "speeds"},
    "comparison": {"architecture", "cost"},
    "cost_tables": {"cost"},
    "together": {"candidate", "cost", "data", "evaluation", "training"},
    "evaluator": {"candidate", "config", "definition", "evaluation", "together"},
    "exporting": {"ablation", "architecture", "candidate", "config", "cost", "data", "definition", "evaluation"}
    | {"search"},
    "places": {"schema", "search"},
    "verdict": {"ablation", "command", "evaluation", "reporting", "search"},
    "view": {"ablation", "command", "evaluation", "reporting", "search"},
    "boards": {"ablation", "reporting", "search", "tracking"},
    "command": {"architecture", "config", "faults", "imports", "schema", "search"},
    "warm": {"cluster", "evaluator", "imports", "together"},
    "joining": {"candidate", "cluster", "evaluation", "search", "speeds"},
    "matching": {"ablation", "architecture", "candidate", "comparison", "config", "data", "schema", "search", "speeds"},
    "checks": {"ablation", "architecture", "cluster", "config", "data", "schema", "search"},
    "plan": {
        "ablation",
        "beginning",
        "candidate",
        "checks",
        "cluster",
        "config",
        "data",
        "definition",
        "joining",
        "matching",
        "places",
    }
    | {"schema", "search", "tracking"},
    "working": {"candidate", "cluster", "config", "data", "evaluation", "evaluator", "faults", "joining", "plan"}
    | {"search", "tracking"},
    "retraining": {"beginning", "candidate", "config", "evaluation", "joining", "plan", "search", "working"},
    "conclusion": {
        "ablation",
        "candidate",
        "cluster",
        "config",
        "data",
        "evaluation",
        "plan",
        "reporting",
        "retraining",
        "search",
        "speeds",
        "tracking",
    },
    "driver": {"cluster", "command", "conclusion", "evaluation", "plan", "reporting", "search", "verdict", "view"}
    | {"working"},
}
# Libraries that could be exchanged one day: each has few users.
OWNERS = {
    "fvcore": {"cost.flops"},
    "wandb": {"tracking"},
    "wandb_workspaces": {"boards"},
    "optuna": {"search", "reporting", "ablation.schedule"},
    "hydra": {"command", "config", "schema", "search.space"},
    "lightning": {"training"},
    "plotly": {"reporting"},
    "matplotlib": {"reporting"},
    "jinja2": {"reporting"},
    "sklearn": {"data"},
    "mlxtend": {"data"},
    "datasets": {"data"},
    "ray": {"cluster.ray"},
    "grpc": {"search.storage", "search.grpc_proxy"},
    "onnxruntime": {"exporting.formats"},
    "optuna_dashboard": {"reporting.dashboard"},
}
# Reading a study, a report and a help text must not wait for these.
HEAVY = {"torch", "lightning", "wandb"}
LIGHT = {
    "cost.record",
    "cost.features",
    "cost.latency_model",
    "evaluation",
    "faults",
    "ablation",
    "search",
    "cluster",
    "reporting",
    "view",
    "tracking",
    "command",
}


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


FILES = {path: path.read_text() for path in sources("explore", "benchmarks", "tests")}
TREES = {dotted(path): ast.parse(text) for path, text in FILES.items() if dotted(path).startswith("explore")}
MODULES = sorted(name for name in TREES if not (ROOT / name.replace(".", "/") / "__init__.py").exists())
ENTRY_POINTS = {name for name in MODULES if name.count(".") == 1 and "__main__" in ast.dump(TREES[name])}


def imported(node: ast.AST) -> Iterator[str]:
    """The dotted names that an import statement asks for; of a name inside a module, the module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"imports must be absolute, got a relative one in line {node.lineno}"
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner in TREES else str(node.module)


@lru_cache
def imports(module: str) -> frozenset[str]:
    """Everything that a module imports, anywhere in it."""
    return frozenset(name for node in ast.walk(TREES[module]) for name in imported(node))


@lru_cache
def imports_on_load(module: str) -> set[str]:
    """What is imported when the module is."""
    found, waiting = set(), list[ast.AST](TREES[module].body)
    while waiting:
        node = waiting.pop()
        found |= set(imported(node))
        for_checkers_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not for_checkers_only and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return found


def loaded_with(module: str) -> dict[str, str]:
    """Everything that is loaded with a module, and who asks for it."""
    found, waiting = {module: ""}, [module]
    while waiting:
        asking = waiting.pop()
        for name in imports_on_load(asking) if asking in TREES else ():
            if name not in found:
                found[name] = asking
                waiting.append(name)
    return found


def part(module: str) -> str:
    return module.split(".")[1]


def belongs(module: str, owners: set[str]) -> bool:
    return any(module == f"explore.{owner}" or module.startswith(f"explore.{owner}.") for owner in owners)


def definitions(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, bool]]:
    """Every function and class, and whether others may use it: no name around it or of it begins with a `_`."""
    waiting: list[tuple[ast.AST, bool]] = [(tree, True)]
    while waiting:
        parent, visible = waiting.pop()
        for node in ast.iter_child_nodes(parent):
            inner = visible and not isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = inner and not node.name.startswith("_")
                yield node, inner
            waiting.append((node, inner))


PUBLIC = [(name, node) for name in MODULES for node, visible in definitions(TREES[name]) if visible]
OWN = {"self", "cls"}


def test_imports_go_one_way() -> None:
    beyond = []
    for module in MODULES:
        ours = {name for name in imports(module) if name.startswith("explore.") and part(name) != part(module)}
        if module in ENTRY_POINTS:
            strangers = ours & ENTRY_POINTS
        else:
            assert part(module) in MAY_IMPORT, f"say at the head of this file what {module} may import"
            strangers = {name for name in ours if part(name) not in MAY_IMPORT[part(module)] | WORDS}
        beyond += [f"{module} must not know {name}" for name in strangers]
    assert not beyond


def test_the_table_of_parts_is_sound() -> None:
    """Otherwise it would allow what it was written to forbid."""
    order = list(graphlib.TopologicalSorter(MAY_IMPORT).static_order())
    assert not any(MAY_IMPORT[leaf] - BELOW for leaf in LEAVES)
    assert set(order) == {part(name) for name in MODULES} - {part(name) for name in ENTRY_POINTS}
    used = {(part(module), part(name)) for module in MODULES for name in imports(module) if name in TREES}
    unused = [(own, other) for own, others in MAY_IMPORT.items() for other in others if (own, other) not in used]
    assert not unused, "take out what nobody needs"


def test_there_are_no_import_cycles() -> None:
    graph = {module: {name for name in imports(module) if name in TREES} for module in MODULES}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_names_are_imported_from_the_module_that_owns_them() -> None:
    packages = set(TREES) - set(MODULES)
    assert not {module: found for module in MODULES if (found := imports(module) & packages)}
    assert not [str(path) for path in FILES if path.name == "__init__.py" and FILES[path]], "__init__.py stays empty"


def test_private_names_stay_at_home() -> None:
    statements = [
        (module, node)
        for module in MODULES
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("explore")
    ]
    taken = [(module, one.name) for module, node in statements for one in node.names if one.name.startswith("_")]
    assert not taken


@pytest.mark.parametrize("library", OWNERS)
def test_libraries_stay_where_they_belong(library: str) -> None:
    users = {module for module in MODULES if any(name.split(".")[0] == library for name in imports(module))}
    assert users, f"nobody needs {library} any more: take it out of pyproject.toml and of this file"
    strangers = {module for module in users if not belongs(module, OWNERS[library])}
    assert not strangers, f"only {sorted(OWNERS[library])} may import {library}"


def test_light_modules_load_without_torch() -> None:
    light = [name for name in MODULES if belongs(name, LIGHT) or name in ENTRY_POINTS]
    assert len(light) > len(LIGHT)
    heavy = {
        f"{module}: {asking} asks for {name}"
        for module in light
        for name, asking in loaded_with(module).items()
        if name.split(".")[0] in HEAVY
    }
    assert not heavy


def test_torchvision_is_not_installed() -> None:
    assert importlib.util.find_spec("torchvision") is None, "one that does not fit torch breaks lightning at import"


def test_files_and_functions_stay_small() -> None:
    lengths = {str(path.relative_to(ROOT)): len(text.splitlines()) for path, text in FILES.items()}
    assert not {name: lines for name, lines in lengths.items() if lines > MAX_MODULE}, "split it at its nouns"
    long = {
        f"{path.name}: {node.name}": lines
        for path, text in FILES.items()
        for node, _ in definitions(ast.parse(text))
        if not isinstance(node, ast.ClassDef) and (lines := 1 + (node.end_lineno or 0) - node.lineno) > MAX_FUNCTION
    }
    assert not long, f"a function has at most {MAX_FUNCTION} lines"


def test_files_are_named_after_what_is_in_them_and_begin_by_saying_it() -> None:
    assert not [str(path) for path in FILES if path.stem in {"utils", "util", "common", "helpers", "misc"}]
    assert not [str(path) for path, text in FILES.items() if text and not ast.get_docstring(ast.parse(text))]
    assert not [str(path) for path in sources("tests") if path.parent != ROOT / "tests"], "tests are flat"


def test_what_others_use_is_documented_and_typed() -> None:
    wanting = []
    for module, node in PUBLIC:
        name = f"{module}.{node.name}"
        if not ast.get_docstring(node):
            wanting.append(f"{name}: docstring")
        if isinstance(node, ast.ClassDef):
            continue
        given = node.args
        parameters = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, [given.vararg])]
        wanting += [f"{name}: type of {one.arg}" for one in parameters if not one.annotation and one.arg not in OWN]
        wanting += [f"{name}: type of what it returns"] if node.returns is None else []
        wanting += [f"{name}: names in place of **{given.kwarg.arg}"] if given.kwarg else []
    assert not wanting
