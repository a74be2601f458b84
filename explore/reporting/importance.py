"""Which dimensions of the search space mattered, per objective."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import optuna
from optuna.trial import FrozenTrial

from explore.counted import counted
from explore.evaluation import COMPLETE, STOPPED
from explore.search.history import as_seen_by_samplers, in_memory
from explore.search.trial import Trial

# PED-ANOVA compares the best trials with all; Optuna asks for five or more of the best.
_BEST = 0.25
LEAST_TRIALS = 20


def importances(trials: Sequence[Trial]) -> Mapping[str, Mapping[str, float]]:
    """Return the share of each dimension in being among the best quarter, by objective; empty below `LEAST_TRIALS`.

    The objectives are accuracy, of which the name says after how many epochs where that is not the end, see `judged`,
    and `throughput`; shares add up to 1 in each. A dimension that only some trials have
    counts where it exists. Watanabe et al. (2023), "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
    Arbitrary Subspaces", with Optuna's extension to conditional dimensions.
    """
    shown, epochs = judged(trials)
    if not shown:
        return {}
    accuracy = f"accuracy after {counted(epochs, 'epoch')}" if epochs else "accuracy"
    # Their order is all that counts, so that the speed may be a logarithm.
    study = _quietly(lambda: in_memory([as_seen_by_samplers(trial) for trial in shown]))
    return {name: _shares(study, index) for index, name in enumerate((accuracy, "throughput"))}


def judged(trials: Sequence[Trial]) -> tuple[list[Trial], int | None]:
    """Return the trials to be compared, and after how many epochs; None for complete ones, which have come to the end.

    Where too few have, as most were stopped: the most epochs that enough trials were trained, and each as it was then.
    """
    complete = [trial for trial in trials if trial.status == COMPLETE]
    if len(complete) >= LEAST_TRIALS:
        return complete, None
    trained = [trial for trial in trials if trial.status in (COMPLETE, STOPPED) and trial.epochs and trial.throughput]
    if len(trained) < LEAST_TRIALS:
        return [], None
    epochs = sorted((trial.epochs for trial in trained), reverse=True)[LEAST_TRIALS - 1]
    return [_after(trial, epochs) for trial in trained if trial.epochs >= epochs], epochs


def _after(trial: Trial, epochs: int) -> Trial:
    """A trial as if it had ended after so many epochs."""
    return replace(trial, evaluation=replace(trial.evaluation, status=COMPLETE, curve=trial.evaluation.curve[:epochs]))


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
