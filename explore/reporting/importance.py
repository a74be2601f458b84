"""Which dimensions of the search space mattered, per objective."""

import warnings
from collections.abc import Callable, Mapping, Sequence

import optuna
from optuna.trial import FrozenTrial

from explore.evaluation import COMPLETE
from explore.search.history import as_seen_by_samplers, in_memory
from explore.search.trial import Trial

# PED-ANOVA compares the best trials with all; Optuna asks for five or more of the best.
_BEST = 0.25
LEAST_TRIALS = 20
_OF_TRAINING = ("training.", "data.augmentation.", "model.drop_path")


def importances(trials: Sequence[Trial]) -> Mapping[str, Mapping[str, float]]:
    """Return the share of each dimension in being among the best quarter, by objective; empty below `LEAST_TRIALS`.

    The objectives are `accuracy` and `throughput`; shares add up to 1 in each. A dimension that only some trials
    have counts where it exists, and one of training alone for no speed. Watanabe et al. (2023), "PED-ANOVA:
    Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces", with Optuna's extension to
    conditional dimensions.
    """
    complete = [trial for trial in trials if trial.status == COMPLETE]
    if len(complete) < LEAST_TRIALS:
        return {}
    # Their order is all that counts, so that the speed may be a logarithm.
    study = _quietly(lambda: in_memory([as_seen_by_samplers(trial) for trial in complete]))
    return {"accuracy": _shares(study, 0), "throughput": _of_the_network(_shares(study, 1))}


def _of_the_network(shares: Mapping[str, float]) -> Mapping[str, float]:
    """The same without what is of training alone, which changes no speed but may go along with what does."""
    kept = {key: share for key, share in shares.items() if not key.startswith(_OF_TRAINING)}
    whole = sum(kept.values()) or 1.0
    return {key: share / whole for key, share in kept.items()}


def _shares(study: optuna.Study, index: int) -> Mapping[str, float]:
    # With scikit-learn it takes a second, which no command should wait for before it begins.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    def loss(trial: FrozenTrial) -> float:
        return -float(trial.values[index])

    with warnings.catch_warnings():
        # It says that it minimises, which `loss` knows, and names values that fewer than two trials have.
        warnings.simplefilter("ignore", UserWarning)
        return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=_BEST), target=loss)


def _quietly(make: Callable[[], optuna.Study]) -> optuna.Study:
    """Make a study; Optuna would announce it as if a search began."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return make()
    finally:
        optuna.logging.set_verbosity(verbosity)
