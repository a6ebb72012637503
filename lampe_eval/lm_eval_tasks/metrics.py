"""Metrics of lm-evaluation-harness: of a sample by its own code, of a cell as its means.

A metric of a cell is computed here where it is a mean over samples, or a function of means, since
only those have intervals and paired tests: shares such as ``acc``, and perplexities. Its code for
others, such as the F1 of a whole task or BLEU, is not called.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from lampe_eval.scoring.estimates import Array, Estimate

Aggregation = Literal["mean", "perplexity", "weighted_perplexity", "bits_per_byte"]
"""How a metric's number of a cell comes from those of its samples."""
NO_FILTER = "none"
NO_VALUE = -1
"""Value of a metric of RULER at a length that is not the sample's."""
MEAN_PROBES = ((0.25, 1.0, 0.0, 0.5), (1.0, 1.0, 0.0))
"""Values by which an aggregation is recognized as a mean, whatever its name."""


def aggregation_of(function: Callable[[list[Any]], Any]) -> Aggregation | None:
    """Return which aggregation a function of the harness is; None for one that is no mean."""
    name: str = getattr(function, "__name__", "")
    if name in ("perplexity", "weighted_perplexity", "bits_per_byte"):
        return name  # type: ignore[return-value]
    try:
        means = [float(function(list(values))) for values in MEAN_PROBES]
    # Other aggregations expect other values, such as pairs of texts.
    except Exception:
        return None
    expected = [math.fsum(values) / len(values) for values in MEAN_PROBES]
    return "mean" if np.allclose(means, expected) else None


def metric_name(metric: str, filter_name: str) -> str:
    """Return the name of a metric, as "acc", or "exact_match,strict-match" with a filter."""
    return metric if filter_name == NO_FILTER else f"{metric},{filter_name}"


def sample_metrics(task: Any, doc: Any, instances: Sequence[Any], main: str) -> dict[str, Any]:
    """Return the metrics of a sample by name, that of the table first.

    Args:
        task: the task of the harness.
        doc: the sample's row of data.
        instances: its requests with their answers.
        main: name of the metric of the table, or a text that names none: then it is the first.
    """
    metrics: dict[str, Any] = {}
    for each in task._filters:
        each.apply(instances)
    for name in instances[0].filtered_resps:
        answers = [instance.filtered_resps[name] for instance in instances]
        for metric, value in task.process_results(doc, answers).items():
            if not np.array_equal(value, NO_VALUE):
                metrics[metric_name(metric, name)] = _plain(value)
    if main in metrics:
        return {main: metrics[main], **metrics}
    return metrics


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, int | float | str | None) else str(value)


def is_share(value: Any) -> bool:
    """Return whether a value is a number from 0 to 1."""
    return isinstance(value, int | float) and 0 <= value <= 1


def share_estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of shares in percent."""
    return Estimate.mean([100 * value for value in values])


def perplexity_estimate(aggregation: Aggregation, values: Sequence[Any]) -> Estimate:
    """Return a perplexity or bits per byte as a function of means.

    Args:
        aggregation: which of them.
        values: log-likelihoods of samples, with their weights for all but "perplexity".
    """
    parts = np.array(values, dtype=float).reshape(len(values), -1)
    # Losses, as those of the bench ppl.
    parts[:, 0] *= -1
    statistic = {
        "perplexity": _perplexity,
        "weighted_perplexity": _weighted_perplexity,
        "bits_per_byte": _bits_per_byte,
    }[aggregation]
    return Estimate(parts, statistic, scale="log")


def _perplexity(means: Array) -> Array:
    return np.asarray(np.exp(means[..., 0]))


def _weighted_perplexity(means: Array) -> Array:
    return np.asarray(np.exp(means[..., 0] / means[..., 1]))


def _bits_per_byte(means: Array) -> Array:
    return np.asarray(means[..., 0] / means[..., 1] / math.log(2))


def estimates(
    aggregations: Mapping[str, Aggregation | None], metrics: Sequence[Mapping[str, Any]]
) -> dict[str, Estimate]:
    """Return the estimate of each metric that all samples have, by name.

    Args:
        aggregations: that of each metric, by its name without a filter.
        metrics: metrics of each sample by name.
    """
    found: dict[str, Estimate] = {}
    for name in metrics[0]:
        if not all(name in each for each in metrics):
            continue
        values = [each[name] for each in metrics]
        # The harness takes the mean of a metric without an aggregation.
        aggregation = aggregations.get(name.partition(",")[0], "mean")
        if aggregation == "mean" and all(map(is_share, values)):
            found[name] = share_estimate(values)
        elif aggregation not in ("mean", None):
            found[name] = perplexity_estimate(aggregation, values)
    return found


def other_means(
    aggregations: Mapping[str, Aggregation | None], metrics: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Return the means of metrics that are numbers but no shares, as the harness has them.

    Args:
        aggregations: that of each metric, by its name without a filter.
        metrics: metrics of each sample by name.
    """
    found: dict[str, float] = {}
    for name in metrics[0]:
        values = [each.get(name) for each in metrics]
        is_mean = aggregations.get(name.partition(",")[0], "mean") == "mean"
        if is_mean and all(isinstance(value, int | float) for value in values):
            found[name] = math.fsum(values) / len(values)  # type: ignore[arg-type]
    return {name: mean for name, mean in found.items() if not _is_share_everywhere(name, metrics)}


def _is_share_everywhere(name: str, metrics: Sequence[Mapping[str, Any]]) -> bool:
    return all(is_share(each[name]) for each in metrics)
