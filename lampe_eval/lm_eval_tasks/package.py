"""The package lm_eval: an optional one, which is imported where it is used."""

import importlib
import logging
from importlib.util import find_spec
from types import ModuleType

from lampe_eval.errors import UserError


def lm_eval_module(name: str) -> ModuleType:
    """Import a module of lm-evaluation-harness, such as "lm_eval.tasks".

    Raises:
        UserError: where it is not installed.
    """
    if find_spec("lm_eval") is None:
        raise UserError(
            "lm-evaluation-harness is not installed; install the extra lm-eval: "
            "pip install 'lampe-eval[lm-eval]'"
        )
    # What it warns about is in the YAML files of its tasks, and nothing that a user could change.
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return importlib.import_module(name)
