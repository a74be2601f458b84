"""The pages of a study in W&B name what its runs hold, read back from their offline files, and are saved in one place.

No server is asked: the library's own specification is what is looked at, and what it would send.

python -m pytest tests/test_publish.py
"""

import importlib.util
import json
import warnings
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
import yaml
from filled_studies import add, new_study
from offline_runs import configuration, every_run, items, run_of, summary
from optuna.storages import InMemoryStorage
from PIL import Image

from explore.ablation.arms import Arm
from explore.ablation.design import NOTE, Design, design_of
from explore.ablation.options import Ablation
from explore.command import Refused
from explore.publish import main
from explore.reporting.report import ablation_tables
from explore.reporting.tables import trial_rows
from explore.search.study import Study, create_study
from explore.tracking import Tracker, Tracking

with warnings.catch_warnings():
    # The library declares its validators as pydantic 1 did.
    warnings.simplefilter("ignore", DeprecationWarning)
    from explore.boards import Board, board_of, report, save, workspace

CONFIG: Any = SimpleNamespace(study=None)
PROGRESS = [{"epochs": 1, "seconds": 2.0, "hypervolume": 0.25}]
WHOLE = {"model": {"patch_size": 4}, "training": {"epochs": 3}}


def searched() -> Study:
    study = new_study()
    for depth, mixing in ((1, "mlp"), (2, "s2"), (3, "attention")):
        heads = {"token_mixing.heads": 2} if mixing == "attention" else {}
        add(study, 0.9 + depth / 100, 3000 / depth, values={"model.depth": depth, "token_mixing": mixing, **heads})
    return study


def compared() -> Study:
    arms = [Arm(name=name, levels={"token_mixing": name}, free=8 + place) for place, name in enumerate(("mlp", "s2"))]
    options = Ablation(by="model.depth", seeds=3, max_seeds=3)
    design = Design(factors=("token_mixing",), arms=arms, options=options, first_seed=0, looks=(3,))
    study = create_study(InMemoryStorage(), "arms", {"space": {}})
    study.note(NOTE, design.to_dict())
    for seed in design.seeds(3):
        for place, arm in enumerate(arms):
            add(study, 0.9 + (0.05 + seed / 1000) * place, values=design.values(arm, seed))
    return study


def tracked(study: Study, folder: Path) -> Path:
    """Write the runs of a study as a search does, its own in the end; returns the folder."""
    tracker, design, trials = Tracker(Tracking(project="shoes"), study.name, folder), design_of(study), study.trials()
    for trial in trials:
        (folder / trial.folder).mkdir(parents=True)
        (folder / trial.folder / "config.yaml").write_text(yaml.dump(WHOLE))
        tracker.write(trial, trial.evaluation)
    pictures = {name: folder / f"{name}.png" for name in (("forest", "plane") if design else ("front",))}
    for file in pictures.values():
        Image.new("RGB", (4, 4)).save(file)
    tables = ablation_tables(study, design) if design else {"trials": trial_rows(trials, {})}
    rows = {name: table.astype(object).where(table.notna(), None).to_dict("records") for name, table in tables.items()}
    tracker.study_run(rows, pictures, [] if design else PROGRESS)
    assert not tracker.broken
    return folder


def paths(node: Any, above: str = "") -> Iterator[str]:
    """Where the leaves of a dictionary are, and its inner nodes: `model.depth`."""
    for key, value in node.items() if isinstance(node, Mapping) else ():
        yield f"{above}{key}"
        yield from paths(value, f"{above}{key}.")


def held(folder: Path) -> set[str]:
    """What panels may name: `config:token_mixing.value.name`, `summary:throughput`, and metrics after each epoch."""
    found = set()
    for run in every_run(folder):
        for path in paths(configuration(run)):
            first, _, rest = path.partition(".")
            found.add(".".join(filter(None, [f"config:{first}", "value", rest])))
        found |= {f"summary:{path}" for path in paths(summary(run))}
        logged = {key.partition(".")[0] for row in items(run, "history", "item") for key in row}
        # The last that was logged is in the summary as well.
        found |= logged | {f"summary:{key}" for key in logged}
    return found


def panels(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "viewType" in node:
            yield node
        node = list(node.values())
    for child in node if isinstance(node, list) else ():
        yield from panels(child)


def named(panel: Mapping[str, Any]) -> list[str]:
    """What a panel of the specification names of the runs."""
    config = panel["config"]
    match panel["viewType"]:
        case "Run History Line Plot":
            grouped = [f"config:{config['groupBy']}"] if "groupBy" in config else []
            return [config["xAxis"], *config["metrics"], *grouped]
        case "Scatter Plot":
            return [config["xAxis"], config["yAxis"]]
        case "Parallel Coordinates Plot":
            return [column["accessor"] for column in config["columns"]]
        case "Parameter Importance":
            return [f"summary:{config['targetKey']}"]
        case "Media Browser":
            return [f"summary:{key}" for key in config["mediaKeys"]]
        case "Weave":
            return [f"summary:{config['panel2Config']['exp']['fromOp']['inputs']['key']['val']}"]
    raise AssertionError(f"what does a panel {panel['viewType']} name?")


def spec(page: Any) -> dict[str, Any]:
    """What the library would send of a page."""
    made: dict[str, Any] = json.loads(page._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    return made


def board(study: Study, folder: Path) -> Board:
    return board_of(study, folder, entity="me", project="shoes")


@pytest.mark.slow
@pytest.mark.parametrize("make", [searched, compared])
def test_every_panel_names_what_the_runs_hold(make: Any, tmp_path: Path) -> None:
    study = make()
    made = board(study, tracked(study, tmp_path))
    known = held(tmp_path)
    for page in (workspace(made), report(made)):
        shown = [(panel["viewType"], name) for panel in panels(spec(page)) for name in named(panel)]
        assert {name for _, name in shown} <= known
        drawn = {name for kind, name in shown if kind == "Parallel Coordinates Plot"}
        assert drawn >= {"config:token_mixing.value.name", "config:model.value.depth", "summary:val_accuracy"}
        expected = {"summary:arms", "summary:differences", "summary:runs", "summary:forest", "summary:plane"}
        assert {name for _, name in shown} >= (expected if design_of(study) else {"summary:trials", "summary:front"})
        assert ("hypervolume" in {name for _, name in shown}) is (design_of(study) is None)
    columns = spec(workspace(made))["section"]["runSets"][0]["runFeed"]["columnPinned"]
    assert {name for name in columns if name.startswith("summary:")} <= known
    assert {run_of(run).run_group for run in every_run(tmp_path)} == {study.name}


def test_throughput_is_on_a_log_axis_and_curves_are_grouped_by_mixing(tmp_path: Path) -> None:
    found = {panel["viewType"]: panel["config"] for panel in panels(spec(workspace(board(searched(), tmp_path))))}
    scatter = found["Scatter Plot"]
    assert (scatter["xAxis"], scatter["yAxis"]) == ("summary:throughput", "summary:val_accuracy")
    assert scatter["xAxisLogScale"] is True
    curves = next(
        panel["config"]
        for panel in panels(spec(workspace(board(searched(), tmp_path))))
        if panel["config"].get("metrics") == ["val_accuracy"]
    )
    assert (curves["groupBy"], curves["groupAgg"]) == ("token_mixing.value.name", "mean")
    columns = found["Parallel Coordinates Plot"]["columns"]
    assert [column["displayName"] for column in columns if column["log"]] == ["images/s"]


def test_pages_show_the_runs_of_one_study(tmp_path: Path) -> None:
    made = board(searched(), tmp_path)
    text = json.dumps(spec(workspace(made))["section"]["runSets"][0]["filters"])
    assert '"group"' in text
    assert '"pareto"' in text
    sets = [block["metadata"]["runSets"][0] for block in spec(report(made))["blocks"] if "metadata" in block]
    assert [json.dumps(one["filters"]).count('"pareto"') for one in sets] == [1, 1]
    assert ['"trial"' in json.dumps(one["filters"]) for one in sets] == [True, False]
    assert ['"study"' in json.dumps(one["filters"]) for one in sets] == [False, True]


def test_report_of_a_search_has_its_front_with_commands(tmp_path: Path) -> None:
    study = searched()
    study.note("test_accuracy", {"0": 0.905, "1": 0.91, "2": 0.92})
    words = board(study, tmp_path).words
    assert words.startswith("3 candidates, 3 of them on the front of accuracy and throughput.\n\n| trial | images/s |")
    assert (
        "| 2 | 1,000 | 93.0 % | 92.0 % | 54.3 k | 3 | attention | 2 | `python -m explore.train model.depth=3` |"
    ) in words
    assert "| 0 | 3,000 | 91.0 % | 90.5 % | 54.3 k | 1 | mlp |  | " in words
    assert words in [block.get("content") for block in spec(report(board(study, tmp_path)))["blocks"]]


def test_report_of_an_ablation_says_what_it_found(tmp_path: Path) -> None:
    (line,) = board(compared(), tmp_path).words.splitlines()
    assert line.startswith("- Token mixing s2 beats mlp by 5.1 points (95 % CI ")
    assert "3 seeds, matched MACs)" in line


def test_study_without_trials_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="study pareto must have trials to be published, got none; run"):
        board(new_study(), tmp_path)


class Server:
    """Keeps views as W&B does, in place of the connection: all that the library asks for by GraphQL while saving."""

    app_url = "https://wandb.test"

    def __init__(self) -> None:
        self.views: dict[str, dict[str, Any]] = {}

    def execute_graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "upsertView(" in query:
            number = variables.get("id") or b64encode(f"View:{len(self.views)}".encode()).decode()
            self.views[number] = {**variables, "id": number, "project": {"name": "shoes", "entityName": "me"}}
            return {"upsertView": {"view": self.views[number], "inserted": True}}
        if "allViews(" in query:
            found = [one for one in self.views.values() if one["name"] == variables["viewName"]]
            return {"project": {"allViews": {"edges": [{"node": one} for one in found]}}}
        return {"view": dict(self.views[variables["reportId"]])}


def test_saved_again_the_pages_stay_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, study = Server(), searched()
    api = SimpleNamespace(_service_api=server, projects=lambda entity: [SimpleNamespace(name="shoes")])
    monkeypatch.setattr(wandb, "Api", lambda: api)
    links = save(board(study, tmp_path), {})
    assert {place.partition("?")[0].partition("--")[0] for place in links.values()} == {
        "https://wandb.test/me/shoes",
        "https://wandb.test/me/shoes/reports/pareto",
    }
    add(study, 0.99, 500, values={"model.depth": 4, "token_mixing": "pooling"})
    assert save(board(study, tmp_path), links) == links
    assert len(server.views) == 2
    view, text = server.views.values()
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("me", "shoes", "pareto")
    assert "pooling" in text["spec"]
    assert sorted(panel["viewType"] for panel in panels(json.loads(view["spec"]))) == sorted(
        panel["viewType"] for panel in panels(spec(workspace(board(study, tmp_path))))
    )


def test_without_a_login_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    words = r"^explore\.publish needs an API key, got none; set WANDB_API_KEY or run `wandb login`$"
    with pytest.raises(Refused, match=words):
        main(CONFIG, [])
    assert capfd.readouterr() == ("", ""), "the words of the refusal are all that is said"


def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Refused, match=r"got none; run pip install 'explore\[publish\]'$"):
        main(CONFIG, [])


def test_whoever_names_no_study_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", 40 * "0")
    with pytest.raises(Refused, match="study must be given, got nothing"):
        main(CONFIG, [])
