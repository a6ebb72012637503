"""``lampe-eval lm-eval``: the command line of lm-evaluation-harness, with the model ``lampe``."""

import sys
from collections.abc import Sequence
from importlib import import_module

from lampe_eval.errors import UserError, describe_error
from lampe_eval.lm_eval_tasks.package import lm_eval_module


def run_lm_eval(arguments: Sequence[str]) -> None:
    """Run lm-evaluation-harness with arguments of its own.

    Releases without plug-ins know no model of other packages; here it is registered first.

    Raises:
        UserError: where it is not installed, and for whatever it raises.
    """
    main = lm_eval_module("lm_eval.__main__")
    import_module("lampe_eval.integrations.lm_eval_model")
    # Its parser reads the arguments of the process.
    sys.argv = ["lm-eval", *arguments]
    try:
        main.cli_evaluate()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"lm-eval: {describe_error(error)}") from error
