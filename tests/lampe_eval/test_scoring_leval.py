"""L-Eval's parsers, metrics and reductions, against worked examples."""

import pytest

from lampe_eval.scoring import leval_metrics


def test_there_are_twenty_tasks() -> None:
    assert len(leval_metrics.METRICS) == 20


@pytest.mark.parametrize(
    ("prediction", "letters"),
    [
        ("A. foo\nB. bar", "AB"),
        ("A, B", "A"),
        ("The answer is C.", "C"),
        ("BA", "AB"),
        ("B) and D)", "BD"),
        ("ABD\nQuestion 2", "ABD"),
        ("C is right\nQuestion 2\nA.", "C"),
        ("so: CD", "CD"),
        ("none of these", "A"),
        (" ", "None"),
    ],
)
def test_choices_where_several_may_be_right(prediction: str, letters: str) -> None:
    assert leval_metrics.choices(prediction, several=True) == letters


@pytest.mark.parametrize(
    ("prediction", "letters"),
    [
        ("(D) foo", "D"),
        ("Answer: B", "A"),
        ("b", "A"),
        ("CD", "CD"),
        ("no letter here", "A"),
        ("", "None"),
    ],
)
def test_choices_where_one_is_right(prediction: str, letters: str) -> None:
    assert leval_metrics.choices(prediction, several=False) == letters


@pytest.mark.parametrize(
    ("reference", "letters"), [("(B) They ran", "B"), ("BD", "BD"), ("C. x", "C"), ("no", "A")]
)
def test_gold_choices(reference: str, letters: str) -> None:
    assert leval_metrics.gold_choices(reference) == letters


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("AB", "AB", 1),
        ("A", "AB", 0.25),
        ("", "AB", 0.25),
        ("a", "A", 0.25),
        ("ABC", "AB", 0),
        ("None", "A", 0),
        ("A", "A.", 1),
        ("18.0", "18", 1),
        ("118", "18", 0),
        ("$18", "18", 1),
        ("the Future  of Space Tourism indeed", "The future of space tourism", 1),
    ],
)
def test_exact_match(prediction: str, reference: str, score: float) -> None:
    assert leval_metrics.exact_match(prediction, reference) == score


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("so 16 - 7 = 9\nThe answer is 18", "18"),
        ("The answer is $1,250.", "1250"),
        ("The answer is 3.50 dollars", "3"),
        ("The answer is -5", "5"),
        ("The answer is unclear, 7", ""),
        ("He makes 9 * 2 = $18 every day", "18"),
        ("first 3\n\nsecond 4", "3"),
        ("no digits", ""),
    ],
)
def test_final_number(text: str, digits: str) -> None:
    assert leval_metrics.final_number(text) == digits


@pytest.mark.parametrize(
    ("prediction", "reference", "output"),
    [
        (
            "so the final output is: [ [1, 2] [3.0] ], as said above",
            "[[1 2][3]]",
            " : [[1 2][3]] as",
        ),
        ("this prints 5", "5", "th prints 5"),
        ("a b c d e 1 2", "1 2", "c d e 1 2"),
    ],
)
def test_code_output(prediction: str, reference: str, output: str) -> None:
    assert leval_metrics.code_output(prediction, reference) == output


@pytest.mark.parametrize(
    ("prediction", "verdicts"),
    [
        ("True. [fact: False.]", ("true", "false")),
        ("It is not true, it is false [fact: True<|eot_id|>]", ("true", "true")),
        ("Untrue [fact: FALSE]", ("true", "false")),
        ("maybe [fact: unknown]", ("<error>", "<error>")),
        ("True", ("true", "<error>")),
    ],
)
def test_judgements(prediction: str, verdicts: tuple[str, str]) -> None:
    assert leval_metrics.judgements(prediction) == verdicts


def test_sci_fi_is_scored_twice() -> None:
    samples = [
        leval_metrics.parts("sci_fi", text, ["True [fact: False]"], {})
        for text in ("True [fact: True]", "so true")
    ]
    assert samples == [{"loyalty": 100, "fact": 0}, {"loyalty": 100, "fact": 0}]
    assert leval_metrics.total(samples) == {"average": 50, "loyalty": 100, "fact": 0}
    assert leval_metrics.score("sci_fi", "True [fact: True]", ["True [fact: False]"], {}) == 0.5


def test_topics_are_averaged_apart() -> None:
    task, reference = "topic_retrieval_longchat", ["The role of art"]
    texts = ["the role of art", "music", "it is: The Role of Art", "?"]
    samples = [
        leval_metrics.parts(task, text, reference, {"row": row}) for row, text in enumerate(texts)
    ]
    assert leval_metrics.total(samples) == {"average": 50, "first": 50, "second": 0, "third": 100}
    assert leval_metrics.score(task, texts[2], reference, {"row": 2}) == 1


@pytest.mark.parametrize(
    ("task", "prediction", "reference", "score"),
    [
        ("coursera", "A and C.", "AC", 100),
        ("tpo", "A and C.", "AC", 25),
        ("gsm100", "The answer is 18 eggs.", "18", 100),
        ("codeU", "The final output will be 12, 14", "12 14", 100),
    ],
)
def test_exam(task: str, prediction: str, reference: str, score: float) -> None:
    assert leval_metrics.parts(task, prediction, [reference], {}) == {"exact_match": score}


def test_f1() -> None:
    samples = [
        leval_metrics.parts("narrative_qa", text, ["Paris"], {})
        for text in ("Paris, France.", "Paris", "")
    ]
    assert leval_metrics.total(samples) == {"f1": 55.5556}


@pytest.mark.parametrize(
    ("prediction", "reference", "total"),
    [
        ("The cat sat on the mat.", "The cat lay on the mat.", (74.69, 83.33, 60.00, 83.33)),
        (
            "Rain fell all night. The river rose.",
            "The river rose. Rain fell all night.",
            (78.09, 100, 83.33, 57.14),
        ),
    ],
)
def test_rouge(prediction: str, reference: str, total: tuple[float, ...]) -> None:
    numbers = leval_metrics.total([leval_metrics.parts("news_summ", prediction, [reference], {})])
    assert list(numbers) == ["geometric_mean", "rouge1", "rouge2", "rougeL"]
    assert tuple(numbers.values()) == pytest.approx(total, abs=0.005)
    assert leval_metrics.score("news_summ", prediction, [reference], {}) == pytest.approx(
        total[3] / 100, abs=5e-5
    )


def test_bands_of_lampe_include_their_upper_ends() -> None:
    assert leval_metrics.by_length([1, 0, 0.25], [4096, 4097, 8192]) == {
        "0-4k": 100,
        "4-8k": 12.5,
        "8k+": 0,
    }
