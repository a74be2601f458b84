"""What comes from outside stays data: nothing in it is run, and no name leads out of the folder of results.

That a report shows all text as text is held in test_reporting.py, that a checkpoint is not unpickled in
test_checkpoint.py.

python -m pytest tests/test_security.py
"""

import ast
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from filled_studies import add, new_study
from test_house import FILES, TREES

from explore.architecture.network import Network
from explore.architecture.pretrained import load_pretrained
from explore.config import compose, vary
from explore.data.cache import fetch
from explore.evaluator import TrainingEvaluator
from explore.places import output_folder
from explore.plan import prepare
from explore.search.study import Study

SMOKE = ["+sweep=smoke", "references=[]"]


@lru_cache
def calls() -> dict[str, list[ast.Call]]:
    """Every call in the package, by the name of what is called."""
    found: dict[str, list[ast.Call]] = {}
    for node in (node for tree in TREES.values() for node in ast.walk(tree)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            found.setdefault(ast.unparse(node.func), []).append(node)
    return found


def test_the_package_unpickles_nothing_and_asks_no_shell() -> None:
    package = [text for path, text in FILES.items() if "explore" in path.parts[-3:-1]]
    assert len(package) > 50
    for word in ("shell=True", "create_subprocess_shell", "os.system", "os.popen", "getoutput", "yaml.load("):
        assert not [text for text in package if word in text], word
    unpickling = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [one.name for one in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not unpickling & {name.partition(".")[0] for name in names}, path
            assert not (isinstance(node, ast.Attribute) and node.attr in ("read_pickle", "pickle", "unsafe_load")), path
    for builtin in ("eval", "exec", "compile", "__import__"):
        assert builtin not in calls()
    for call in calls()["torch.load"]:
        assert "weights_only=True" in ast.unparse(call)
    for call in calls()["np.load"]:
        assert "allow_pickle" not in ast.unparse(call)
    by_name = calls().items()
    started = [call for name, found in by_name for call in found if name.startswith("subprocess.") and call.args]
    assert len(started) >= 5
    for call in started:
        assert not isinstance(call.args[0], ast.Constant | ast.JoinedStr), "a list, never a string for a shell"


def evil(path: Path) -> np.ndarray:
    class Evil:
        def __reduce__(self) -> object:
            return (Path.touch, (path,))

    return np.array([Evil()], dtype=object)


def test_arrays_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "train_images.npy", evil(tmp_path / "ran"), allow_pickle=True)
    (tmp_path / "facts.json").write_text('{"arrays": ["train_images"]}')
    assert fetch(tmp_path) is None
    np.savez(tmp_path / "weights.npz", evil(tmp_path / "ran"), allow_pickle=True)
    config = compose(["data=digits", "model.patch_size=2", "model.width=8", "model.depth=1"])
    from explore.data.dataset import load

    network = Network(config.candidate.architecture(load(config.data)))
    with pytest.raises(ValueError, match="pretrained must be a checkpoint"):
        load_pretrained(network, tmp_path / "weights.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name", ["../x", "/tmp/x", "..", ".", "a/b", "a\\b", "a\0b", "a\n", "-x", "x" * 101, "a b", "$(id)"]
)
def test_a_study_does_not_leave_the_folder_of_results(name: str, tmp_path: Path) -> None:
    config = replace(compose([*SMOKE, f"outputs={tmp_path}"]), study=name)
    with pytest.raises(ValueError, match=r"study must be a name of letters, digits, .* at most 100 in all, got '"):
        prepare(config, SMOKE)
    assert not list(tmp_path.iterdir())


def test_a_link_does_not_lead_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "smoke").symlink_to(tmp_path / "elsewhere")
    config = compose([*SMOKE, f"outputs={tmp_path / 'outputs'}"])
    with pytest.raises(ValueError, match=r"the folder of a study must lie in outputs, got .*, a link to .*elsewhere"):
        prepare(config, SMOKE)
    (tmp_path / "link").symlink_to(tmp_path / "outputs")
    (tmp_path / "outputs" / "smoke").unlink()
    assert output_folder(compose([*SMOKE, f"outputs={tmp_path / 'link'}"])) == tmp_path / "link" / "smoke"


@pytest.mark.parametrize("outputs", ["a\0b", "x" * 5000, "/".join(["x" * 200] * 30)], ids=["nul", "long", "deep"])
def test_outputs_that_no_folder_can_be_called_are_refused(outputs: str) -> None:
    config = replace(compose(SMOKE), outputs=outputs)
    with pytest.raises(ValueError, match="outputs must be"):
        prepare(config, SMOKE)


def test_a_trial_lies_among_the_trials_whatever_the_storage_says() -> None:
    study = new_study()
    trial = add(study)
    for number, place in enumerate(["../../x", "/etc", "trials/../../x", "trials/1/../../..", "trials", "", None]):
        claim = {"overrides": [], "folder": place, "number": 7, "command": "", "owner": {}}
        study._storage.create_new_trial(study._id, template_trial=_row(study, trial.row, claim))
        assert study.trials()[-1].folder == f"trials/{number + 1:04d}"
    claim = {"overrides": [], "folder": "trials/0042", "number": 9, "command": "", "owner": {}}
    study._storage.create_new_trial(study._id, template_trial=_row(study, trial.row, claim))
    assert study.trials()[-1].folder == "trials/0042"


def _row(study: Study, row: int, claim: dict[str, object]) -> object:
    frozen = study._storage.get_all_trials(study._id)[row]
    frozen.user_attrs = {**frozen.user_attrs, "claim": claim}
    return frozen


@pytest.mark.parametrize("override", ["imports=[evil]", "outputs=/tmp/x", "pretrained=/etc/passwd", "model.depth=1"])
def test_a_trial_sets_nothing_but_the_dimensions_of_its_space(override: str, tmp_path: Path) -> None:
    base, keys = ("data=digits", "model.patch_size=2"), ("model.width",)
    assert vary(base, ["model.width=8"], keys).model.width == 8
    message = rf"a trial must be of the space model\.width, got {override.split('=')[0]}="
    with pytest.raises(ValueError, match=message):
        vary(base, ["model.width=8", override], keys)
    with pytest.raises(ValueError, match=message):
        TrainingEvaluator(base, None, keys)([override], tmp_path / "trial", lambda item: None)
    assert not (tmp_path / "trial").exists()


def test_values_are_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra's interpolation would read the environment into what is recorded and shown."""
    monkeypatch.setenv("SECRET", "told")
    base = ("data=digits", "model.patch_size=2")
    assert "told" not in str(vary(base, ["model.pooling='${oc.env:SECRET}'"], ("model.pooling",)))
