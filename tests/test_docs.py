"""What the documentation shows can be done: its links lead somewhere, its commands compose, its example runs."""

import importlib
import inspect
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hydra.core.config_store import ConfigStore

from explore.architecture.token_mixing.catalog import TOKEN_MIXINGS
from explore.config import compose
from explore.measure import main as measure
from explore.plan import prepare
from explore.search.options import URL_VARIABLE

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for folder in ("", "docs", "sweeps", "benchmarks") for path in (ROOT / folder).glob("*.md"))
PAGES += sorted((ROOT / "sweeps").glob("*/*.md"))
EXAMPLE = ROOT / "docs" / "adding-a-mixing.md"
CLUSTER = ROOT / "docs" / "cluster.md"
SECRETS = (URL_VARIABLE, "PGPASSWORD", "WANDB_API_KEY")


def commands(path: Path) -> Iterator[list[str]]:
    """The words of every `python -m ...` of ours on a page, in a block of code or in a line."""
    for line in path.read_text().replace("\\\n", " ").splitlines():
        for found in re.findall(r"python -m ((?:explore|benchmarks)\.[^`]*)", line):
            yield shlex.split(found, comments=True)


COMMANDS = sorted({(path.name, *words) for path in PAGES for words in commands(path)})


def test_links_lead_somewhere() -> None:
    dead = []
    for path in PAGES:
        links = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", path.read_text())
        for link in (one or other for one, other in links):
            target = link.partition("#")[0]
            if target and not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
                dead.append(f"{path.relative_to(ROOT)}: {link}")
    assert not dead


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_compose(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    _, module, *overrides = command
    if module.endswith(".NAME"):
        return
    assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), f"there is no {module}"
    if module.startswith("benchmarks"):
        main = importlib.import_module(module).main
        if "arguments" in inspect.signature(main).parameters:
            with pytest.raises(SystemExit):
                main([*overrides, "unheard=1"])
            assert "unknown key unheard" in capsys.readouterr().err, "the first that it does not know"
        return
    placeholders = [word for word in overrides if re.search(r"=[A-Z]+$|\.\.\.", word)]
    own = getattr(importlib.import_module(module), "own", lambda word: False)
    overrides = [word for word in overrides if not own(word)]
    if not placeholders and not any(word.startswith(("imports=", "-")) for word in overrides):
        compose(overrides)


def test_the_job_of_kubernetes_is_a_worker_with_its_folder_and_without_a_secret() -> None:
    """Everything that the manifest names twice is the same, and what it starts is a command that composes."""
    (manifest,) = re.findall(r"```yaml\n(.*?)```", CLUSTER.read_text(), re.DOTALL)
    (job,) = yaml.safe_load_all(manifest)
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert job["spec"]["completions"] == job["spec"]["parallelism"], "each worker that finds nothing left to do is one"
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] in ("OnFailure", "Never"), "a Job takes no other"
    (container,) = pod["containers"]
    python, flag, module, *overrides = [*container["command"], *container.get("args", [])]
    assert (python, flag, module) == ("python", "-m", "explore.worker")
    assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists()
    config = compose(overrides)
    assert config.study == job["metadata"]["name"].removeprefix("explore-")

    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    assert config.outputs in mounts.values(), "what all pods share is where the results lie"
    variables = {variable["name"]: variable for variable in container["env"]}
    assert URL_VARIABLE in variables, "the worker finds its study by it"
    assert set(variables[URL_VARIABLE]["valueFrom"]["secretKeyRef"]) == {"name", "key"}
    assert not [name for name, variable in variables.items() if "value" in variable and name.startswith(SECRETS)]
    assert not re.search(r"\w+://", " ".join(overrides)), "an address may hold a password"
    limits = container["resources"]["limits"]
    assert config.workers == limits["nvidia.com/gpu"] == 1


def test_the_database_that_is_made_is_the_one_that_is_named() -> None:
    (statements,) = re.findall(r"```sql\n(.*?)```", CLUSTER.read_text(), re.DOTALL)
    role, database, owner = re.findall(r"create role (\w+) .*\ncreate database (\w+) owner (\w+);", statements)[0]
    assert role == owner
    named = set(re.findall(r"postgresql://\S+?/\w+", CLUSTER.read_text()))
    assert named == {f"postgresql://{role}@db/{database}"}


def test_make_knows_the_targets_that_are_named() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for path in PAGES for name in re.findall(r"(?:^|`)make ([a-z-]+)", path.read_text(), re.MULTILINE)}
    assert named <= targets


def test_the_changelog_begins_with_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == version


@pytest.fixture
def extensible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that Python imports from; what a module in there adds to the catalogs is taken out again."""
    options, known = ConfigStore.instance().repo["token_mixing"], set(TOKEN_MIXINGS)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(TOKEN_MIXINGS) - known:
        del TOKEN_MIXINGS[name], options[f"{name}.yaml"]
    for path in tmp_path.glob("*.py"):
        del sys.modules[path.stem]


def test_the_example_of_a_mixing_runs(extensible: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The documented class, by the first documented command, costs what an MLP of as many hidden numbers does."""
    (code,) = re.findall(r"```python\n(.*?)```", EXAMPLE.read_text(), re.DOTALL)
    (extensible / "my_mixings.py").write_text(code)
    _, *documented = next(words for words in commands(EXAMPLE) if words[0] == "explore.measure")
    assert documented[1:] == ["token_mixing=low_rank", "token_mixing.rank=4"]

    def measured(*overrides: str) -> dict[str, int]:
        small = ["data=digits", "model.patch_size=2", "model.width=16", "model.depth=1", "throughput=off"]
        line = [*overrides, *small, "format=json"]
        assert measure(compose(line), line) == 0
        found: dict[str, int] = json.loads(capsys.readouterr().out)
        return found

    found, expected = measured(*documented), measured("token_mixing=mlp", f"token_mixing.expansion={4 / 16}")
    assert [found[key] for key in ("params", "macs")] == [expected[key] for key in ("params", "macs")]


@pytest.mark.slow
def test_the_search_of_the_example_can_begin(extensible: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", EXAMPLE.read_text(), re.DOTALL)
    (extensible / "my_mixings.py").write_text(code)
    _, *documented = next(words for words in commands(EXAMPLE) if words[0] == "explore.sweep")
    line = [*documented, f"outputs={extensible}"]
    assert prepare(compose(line), line).space.keys() >= {"token_mixing", "token_mixing.rank"}
