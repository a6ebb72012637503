"""Records of Every Eval Ever, schema 0.2: one file for each model, method and benchmark.

Files lie where that project's data folder has them: data/<benchmark>/<developer>/<model>/. Their
names are hashes of what was run, so that a run that is exported again replaces its files.
"""

import json
import sys
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from lampe_eval.export.exported_run import (
    ExportedAverage,
    ExportedCell,
    ExportedNumber,
    ExportedResults,
)
from lampe_eval.file_io import safe_name, sha256_of_text
from lampe_eval.scoring.intervals import CONFIDENCE

SCHEMA_VERSION = "0.2.2"
UNKNOWN = "unknown"
"""Developer of a model that has no id on the hub, and organisation that ran lampe-eval."""


def files(results: ExportedResults) -> dict[str, str]:
    """Return a file for each benchmark, by path."""
    developer, _, name = results.hub_id.rpartition("/")
    texts: dict[str, str] = {}
    for bench in results.benches:
        record = _record(results, bench, developer or UNKNOWN)
        identity = [
            record["evaluation_id"],
            record["model_info"],
            results.config["protocols"][bench],
        ]
        digest = sha256_of_text(json.dumps(identity))
        # The version and variant of a random UUID, which names of records must have.
        uuid = UUID(digest[:32], version=4)
        record["retrieved_timestamp"] = str(time.time())
        folder = f"data/{safe_name(bench)}/{safe_name(developer or UNKNOWN)}/{safe_name(name)}"
        texts[f"{folder}/{uuid}.json"] = f"{json.dumps(record, indent=2)}\n"
    return texts


def _record(results: ExportedResults, bench: str, developer: str) -> dict[str, Any]:
    """Return the record of a benchmark, without the time of its export."""
    config = results.config
    timestamp = str(results.time.timestamp())
    cells = [cell for cell in results.cells if cell.bench == bench]
    averages = [average for average in results.averages if average.bench == bench]
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": f"{bench}-{results.method}/{results.hub_id}/{timestamp}",
        "evaluation_timestamp": timestamp,
        "source_metadata": {
            "source_name": "lampe-eval",
            "source_type": "evaluation_run",
            "source_organization_name": UNKNOWN,
            "evaluator_relationship": "other",
        },
        "eval_library": {
            "name": "lampe-eval",
            "version": results.version,
            "additional_details": _texts(
                {
                    "protocol": config["protocol"],
                    "protocol_fields": config["protocols"][bench],
                    "seed": config["seed"],
                    "limit": config["limit"],
                    "max_batch_tokens": config["max_batch_tokens"],
                }
            ),
        },
        "model_info": {
            "name": results.model,
            "id": results.hub_id,
            "developer": developer,
            "inference_engine": {
                "name": "transformers",
                "version": str(results.environment.get("transformers", UNKNOWN)),
            },
            "additional_details": _texts(
                {
                    "deployment_type": "self_deployed",
                    "model_availability": UNKNOWN if developer == UNKNOWN else "open_weights",
                    **results.model_record,
                    "method": results.method,
                    "method_settings": results.settings,
                    "attention": config["attention"],
                }
            ),
        },
        "evaluation_results": [
            *[_cell_result(cell) for cell in cells],
            *[_average_result(average) for average in averages],
        ],
    }


def _cell_result(cell: ExportedCell) -> dict[str, Any]:
    bounds = (0.0, 100.0) if cell.is_percent else (0.0, sys.float_info.max)
    details = {
        "length": cell.cell.length,
        "attention_factor": cell.attention_factor,
        "independent_units": cell.independent_units,
        "unit": cell.unit,
        "stopping": cell.stopping or None,
        "settings": cell.resolved["settings"] if cell.resolved else None,
    }
    return {
        "evaluation_result_id": cell.name,
        "evaluation_name": cell.name,
        "source_data": {
            "dataset_name": f"{cell.bench}/{cell.cell.task}",
            "source_type": "other",
            "additional_details": _texts({"version": cell.version}),
        },
        "metric_config": {
            "metric_name": cell.metric,
            "metric_unit": "percent" if cell.is_percent else cell.metric,
            "lower_is_better": not cell.higher_is_better,
            "score_type": "continuous",
            "min_score": bounds[0],
            "max_score": bounds[1],
        },
        "score_details": {
            "score": cell.value,
            "details": _texts(details),
            "uncertainty": {**_uncertainty(cell), "num_samples": cell.n},
        },
        "generation_config": {"generation_args": {"temperature": 0.0}},
    }


def _average_result(average: ExportedAverage) -> dict[str, Any]:
    # A number over lengths may itself be a length.
    is_percent = average.is_percent and average.length is not None
    at_length = "" if average.length is None else f" at {average.length}"
    name = f"{average.bench}, {average.name}{at_length}"
    return {
        "evaluation_result_id": name,
        "evaluation_name": name,
        "source_data": {"dataset_name": average.bench, "source_type": "other"},
        "metric_config": {
            "metric_name": average.name,
            "lower_is_better": not average.higher_is_better,
            "score_type": "continuous",
            "min_score": 0.0,
            "max_score": 100.0 if is_percent else sys.float_info.max,
        },
        "score_details": {"score": average.value, "uncertainty": _uncertainty(average)},
    }


def _uncertainty(number: ExportedNumber) -> dict[str, Any]:
    """Return standard error and interval, as far as the number has them."""
    uncertainty: dict[str, Any] = {}
    if number.stderr is not None:
        uncertainty["standard_error"] = {"value": number.stderr}
    if number.ci_low is not None and number.ci_high is not None:
        uncertainty["confidence_interval"] = {
            "lower": number.ci_low,
            "upper": number.ci_high,
            "confidence_level": CONFIDENCE,
        }
    return uncertainty


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return further details, which must be texts; those that are None are left out."""
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in values.items()
        if value is not None
    }
