import lampe_eval.benches  # noqa: F401  # the package comes first: it imports lampe_eval.ruler, which imports its base
