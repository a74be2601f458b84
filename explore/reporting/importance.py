"""Which dimensions of the search space mattered, per objective."""

import warnings
from collections.abc import Mapping, Sequence

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, create_trial

from explore.evaluation import COMPLETE
from explore.search.study import Trial

# PED-ANOVA compares the best trials with all; Optuna asks for five or more of the best.
_BEST = 0.25
LEAST_TRIALS = 20


def importances(trials: Sequence[Trial]) -> Mapping[str, Mapping[str, float]]:
    """Return the share of each dimension in being among the best quarter, by objective; empty below `LEAST_TRIALS`.

    The objectives are `accuracy` and `throughput`; shares add up to 1 in each. A dimension that only some trials have
    counts where it exists. Watanabe et al. (2023), "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
    Arbitrary Subspaces", with Optuna's extension to conditional dimensions.
    """
    complete = [trial for trial in trials if trial.status == COMPLETE]
    if len(complete) < LEAST_TRIALS:
        return {}
    study = _quiet_study()
    study.add_trials(
        create_trial(
            values=[trial.accuracy or 0.0, trial.throughput or 0.0],
            params=dict(trial.proposal.values),
            distributions=dict(trial.proposal.distributions),
        )
        for trial in complete
    )
    return {name: _shares(study, index) for index, name in enumerate(("accuracy", "throughput"))}


def _shares(study: optuna.Study, index: int) -> Mapping[str, float]:
    def loss(trial: FrozenTrial) -> float:
        return -float(trial.values[index])

    with warnings.catch_warnings():
        # It says that it minimises, which `loss` knows, and names values that fewer than two trials have.
        warnings.simplefilter("ignore", UserWarning)
        return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=_BEST), target=loss)


def _quiet_study() -> optuna.Study:
    """An empty study; Optuna would announce it as if a search began."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(directions=["maximize", "maximize"])
    finally:
        optuna.logging.set_verbosity(verbosity)
