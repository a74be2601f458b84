"""Which dimensions of the search space mattered, per objective."""

import warnings
from collections.abc import Mapping, Sequence

import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import create_trial

from explore.evaluation import COMPLETE
from explore.search.study import Trial

# PED-ANOVA compares the best trials with all; its authors ask for five or more of the best.
_BEST = 0.25
LEAST_TRIALS = 20


def importances(trials: Sequence[Trial]) -> Mapping[str, Mapping[str, float]]:
    """Return the share of each dimension in being among the best quarter, by objective; empty below `LEAST_TRIALS`.

    Shares are of one over the dimensions of an objective (`accuracy`, `throughput`). A dimension that only some trials
    have counts where it exists. Watanabe et al. (2023), "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance
    in Arbitrary Subspaces", with Optuna's extension to conditional dimensions.
    """
    complete = [trial for trial in trials if trial.status == COMPLETE]
    if len(complete) < LEAST_TRIALS:
        return {}
    return {
        "accuracy": _shares(complete, [trial.accuracy or 0.0 for trial in complete]),
        "throughput": _shares(complete, [trial.throughput or 0.0 for trial in complete]),
    }


def _shares(trials: Sequence[Trial], targets: Sequence[float]) -> Mapping[str, float]:
    storage = optuna.storages.InMemoryStorage()
    storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "importance")
    study = optuna.load_study(study_name="importance", storage=storage)
    study.add_trials(
        create_trial(value=target, params=dict(trial.proposal.values), distributions=dict(trial.proposal.distributions))
        for trial, target in zip(trials, targets, strict=True)
    )
    with warnings.catch_warnings():
        # It warns of values that fewer than two trials have; they only miss their own small share.
        warnings.simplefilter("ignore", UserWarning)
        return optuna.importance.get_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(target_quantile=_BEST)
        )
