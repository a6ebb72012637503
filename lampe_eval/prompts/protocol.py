"""Protocols: how a bench's samples become prompts, and its answers a number. ``tasks/<bench>/protocols.yaml`` has them.

Three names mean the same in every bench: ``official`` is what its authors run, ``lampe`` what LaMPE's authors ran,
and ``fair`` gives every method the same prompt, cut as token ids. Scores of different protocols never share a table.
"""

from typing import Any, Final, Literal

import yaml
from pydantic import Field, ValidationError

from lampe_eval.cards import Card, read, shipped
from lampe_eval.errors import UserError, unknown

KIBI: Final = 1024


class Protocol(Card):
    """What is fixed beside model, method and task. A length is of prompt and answer together, L tokens.

    Attributes:
        windows: lengths by default, in windows of the model.
        prompts: whose wording: our own, the benchmark's files, RULER's of 2024, LaMPE's, or prompts that are ready.
        chat: the tokenizer's template where it has one, what the benchmark's own code wraps prompts in, or nothing.
        bos: once, or added by the tokenizer to whatever the prompt begins with already.
        truncation: which part of a prompt that is too long goes; none leaves it, skip leaves the sample out.
        cut: token ids; or text, decoded and encoded again; or words, as L-Eval counts them.
        unit: tokens that a prompt may have for every 1024 of L.
        reserve: tokens less than that: as many as the answer and the chat template take, or a number.
        decoding: the answer's text without special tokens, with them, or with them and all white space squeezed.
        scorer: whose, where they differ.
        average: over tasks: of categories first, or all alike.
    """

    windows: tuple[int, ...] = (1, 2, 4)
    prompts: Literal["own", "official", "2024", "lampe", "ready"]
    chat: Literal["template", "upstream", "none"]
    bos: Literal["once", "added"] = "once"
    truncation: Literal["middle", "left", "right", "none", "skip"]
    cut: Literal["ids", "text", "words"] = "ids"
    unit: Literal[1000, 1024] = KIBI
    reserve: int | Literal["answer"] = "answer"
    decoding: Literal["text", "specials", "squeezed"] = "text"
    scorer: Literal["official", "lampe"] = "official"
    average: Literal["categories", "tasks"] = "tasks"

    def limit(self, length: int, answer: int) -> int:
        """Tokens that a prompt may have, in a cell of a length and with so many for the answer."""
        whole = length if self.unit == KIBI else length * self.unit // KIBI
        return whole - (answer if self.reserve == "answer" else self.reserve)


class Protocols(Card):
    """The protocols of a bench by name."""

    protocols: dict[str, Protocol] = Field(min_length=1)


def protocols(bench: str) -> dict[str, Protocol]:
    """The protocols of a bench."""
    return read(shipped("tasks") / bench / "protocols.yaml", Protocols).protocols


def parse(bench: str, text: str) -> Protocol:
    """A protocol of a bench from ``fair`` or, with changes, ``fair:truncation=left,chat=none``.

    Raises:
        UserError: for a name, a field or a value that does not exist.
    """
    name, _, changes = text.partition(":")
    known = protocols(bench)
    if name not in known:
        raise unknown(f"protocol of {bench}", name, known, f"lampe-eval list protocols; {bench} has {', '.join(known)}")
    fields = known[name].model_dump() | _changes(changes)
    try:
        return Protocol.model_validate(fields)
    except ValidationError as error:
        fault = error.errors()[0]
        raise UserError(f"--protocol: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None


def _changes(text: str) -> dict[str, Any]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    for key, equals, value in pairs:
        if key.strip() not in Protocol.model_fields or key.strip() == "about":
            raise unknown("field of a protocol", key.strip(), Protocol.model_fields, "lampe-eval list protocols")
        if not (equals and value.strip()):
            raise UserError(f"--protocol: {key!r} is not of the form field=value")
    return {key.strip(): yaml.safe_load(value) for key, _, value in pairs}
