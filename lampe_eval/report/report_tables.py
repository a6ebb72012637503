"""All tables of a report, in the order in which they are read."""

from lampe_eval.report.decision_table import decision_tables
from lampe_eval.report.difference_table import difference_tables
from lampe_eval.report.table_model import ResultTable, result_tables
from lampe_eval.results.gathered_runs import GatheredRuns


def report_tables(gathered: GatheredRuns) -> list[ResultTable]:
    """Return the tables of scores, then those of decisions and of differences."""
    return [*result_tables(gathered), *decision_tables(gathered), *difference_tables(gathered)]
