"""A benchmark of your own: can the model still say how a long text began?

    lampe-eval run --plugin examples/my_bench.py --bench first-words --lengths 512,1024

The folder `first-words` beside this file has its YAML: `tasks.yaml` lists the tasks, with what
`FirstWordsCard` declares, and `protocols.yaml` says how samples become prompts. There,
`plan_length: prompt+answer` would let methods plan for the answer as well, as the shipped
benchmarks do under `fair`.
"""

from collections.abc import Iterator
from typing import ClassVar

from lampe_eval.benches.bench import Bench, Prompt, SampleRequest, Task
from lampe_eval.cards import TaskCard
from lampe_eval.prompts.protocol import Protocol
from lampe_eval.prompts.tokenization import encode, with_bos
from lampe_eval.records import SampleRecord
from lampe_eval.texts import pocket_language

QUESTION = "\nThe text began with these words:"


class FirstWordsCard(TaskCard):
    """Entry of `tasks.yaml`: the number of words to repeat, and the tokens of the answer."""

    words: int
    max_new_tokens: int


class FirstWords(Bench):
    """Share of a text's first words that the model repeats, in percent."""

    name: ClassVar[str] = "first-words"  # what --bench takes, and the folder of the YAML files
    card: ClassVar[type[TaskCard]] = FirstWordsCard

    def samples(self, task: Task, request: SampleRequest) -> Iterator[Prompt]:
        """Yield prompts that have, with their answers, exactly `request.length` tokens."""
        tokenizer = request.tokenizer
        question = encode(tokenizer, QUESTION, continuation=True)
        for index in range(request.limit):
            # Draw from the seed and the index alone: every method must get the same samples.
            text = pocket_language.text(f"{request.seed} {index}", words=request.length)
            ids = with_bos(tokenizer, encode(tokenizer, text))
            text_tokens = request.length - task.card.max_new_tokens - len(question)
            yield Prompt(
                id=f"{request.length}/{index}",
                ids=ids[:text_tokens] + question,
                max_new_tokens=task.card.max_new_tokens,
                references=text.split()[: task.card.words],
            )

    def score(self, task: str, row: SampleRecord, protocol: Protocol) -> float:
        """Return the share of words that are right, from 0 to 1; tables show it in percent."""
        words = zip(row["prediction"].split(), row["references"], strict=False)
        right = [word == expected for word, expected in words]
        return sum(right) / len(row["references"])
