"""GraphWalks' scores: F1 over sets of nodes, read from a line with the final answer.

Programs score the same answers by five rules, which differ in the line that counts, in the form of
the list, and in what two empty sets are worth. The four that ran are here by the name of their
program. The code printed on the data set's card is not: it gives 1 to a list of wrong nodes.

Sources: `lm_eval/tasks/graphwalks/utils.py` of EleutherAI/lm-evaluation-harness at 4e7e0d4,
groq/openbench at d03922c, `resources_servers/graphwalks/app.py` of NVIDIA-NeMo/Gym at 07d6b0d.
"""

import re
from collections.abc import Callable, Mapping, Sequence

ANSWER_LIST = re.compile(r"Final Answer:\s*\[(.*)\]")
WHOLE_LINE_END = re.compile(r"final answer:\s*\[(.*)\]\s*$", re.IGNORECASE)

Nodes = set[str]
FindNodes = Callable[[str], Nodes | None]
"""Function from an answer to its set of nodes, or None where it has no list that counts."""


def score(scorer: str, prediction: str, references: Sequence[str]) -> float:
    """Return the F1 score of a prediction by the rule of a program.

    Args:
        scorer: "lm_eval", "lm_eval_flexible", "openbench" or "nemo_gym".
        prediction: the answer.
        references: the right nodes.
    """
    find_nodes, empty_score, unread_empty_score = SCORERS[scorer]
    nodes, expected = find_nodes(prediction), set(references)
    if not nodes and not expected:
        return unread_empty_score if nodes is None else empty_score
    return set_f1(nodes or set(), expected)


def set_f1(predicted: Nodes, expected: Nodes) -> float:
    """Return the F1 score of a set, 0 where the two share nothing."""
    shared = len(predicted & expected)
    if not shared:
        return 0.0
    precision = shared / len(predicted)
    recall = shared / len(expected)
    return 2 * (recall * precision) / (recall + precision)


def _last_line(prediction: str) -> Nodes | None:
    return _unquoted(ANSWER_LIST.search(prediction.rstrip("\n").split("\n")[-1]))


def _any_line(prediction: str) -> Nodes | None:
    for line in reversed(prediction.rstrip("\n").split("\n")):
        match = ANSWER_LIST.search(line)
        if match:
            return _unquoted(match)
    return None


def _unstripped_last_line(prediction: str) -> Nodes | None:
    return _items(WHOLE_LINE_END.search(prediction.split("\n")[-1]))


def _last_line_with_text(prediction: str) -> Nodes | None:
    return _items(ANSWER_LIST.search(prediction.strip().split("\n")[-1]))


def _items(match: re.Match[str] | None) -> Nodes | None:
    if match is None:
        return None
    return {item.strip() for item in match[1].split(",") if item.strip()}


def _unquoted(match: re.Match[str] | None) -> Nodes | None:
    items = _items(match)
    return None if items is None else {item.strip("'\"") for item in items}


SCORERS: Mapping[str, tuple[FindNodes, float, float]] = {
    "lm_eval": (_last_line, 0.0, 0.0),
    "lm_eval_flexible": (_any_line, 0.0, 0.0),
    "openbench": (_unstripped_last_line, 1.0, 1.0),
    "nemo_gym": (_last_line_with_text, 1.0, 0.0),
}
"""For each program how it finds the nodes, and its scores of an empty list and of no list where no
node is right."""
