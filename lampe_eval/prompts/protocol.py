"""Protocols: how a bench's samples become prompts, and its answers a number. ``tasks/<bench>/protocols.yaml`` has them.

Three names mean the same in every bench: ``official`` is what its authors run, ``lampe`` what LaMPE's authors ran,
and ``fair`` gives every method the same prompt, cut as token ids. Scores of different protocols never share a table.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from lampe_eval.cards import Card, read_card
from lampe_eval.errors import UserError, unknown_name

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
        max_new_tokens: room for an answer, where the protocol says it and not the task.
        first_line: tasks whose answer ends with its first line.
        changes: fields that a user may change, with the values that they may have.
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
    max_new_tokens: int | None = None
    first_line: tuple[str, ...] = ()
    changes: Mapping[str, tuple[str, ...]] = {}

    def limit(self, length: int, answer: int) -> int:
        """Tokens that a prompt may have, in a cell of a length and with so many for the answer.

        Raises:
            UserError: where there are none.
        """
        reserve = answer if self.reserve == "answer" else self.reserve
        limit = length * self.unit // KIBI - reserve
        if limit < 1:
            raise UserError(
                f"length {length} leaves no token for a prompt: the protocol reserves {reserve} of "
                f"{length * self.unit // KIBI}; use longer --lengths"
            )
        return limit


class Protocols(Card):
    """The protocols of a bench by name."""

    protocols: dict[str, Protocol] = Field(min_length=1)


def bench_protocols(folder: Path) -> dict[str, Protocol]:
    """The protocols of a bench."""
    return read_card(folder / "protocols.yaml", Protocols).protocols


def parse_protocol(bench: str, text: str, folder: Path) -> Protocol:
    """A protocol of a bench from ``fair`` or, with changes, ``fair:truncation=left,chat=none``.

    Raises:
        UserError: for a name, a field or a value that does not exist.
    """
    name, _, changes = text.partition(":")
    known = bench_protocols(folder)
    if name not in known:
        raise unknown_name(
            f"protocol of {bench}",
            name,
            known,
            f"lampe-eval list protocols; {bench} has {', '.join(known)}",
        )
    pairs = [part.partition("=") for part in changes.split(",") if part.strip()]
    changed = dict(
        _change(bench, name, known[name], key.strip(), value.strip()) for key, _, value in pairs
    )
    return known[name].model_copy(update=changed)


def _change(bench: str, name: str, protocol: Protocol, field: str, value: str) -> tuple[str, str]:
    """A change that makes a difference; any other would put a false name above a table."""
    where = f"--protocol: {name!r} of {bench}"
    if field not in protocol.changes:
        may = f"; what can is: {', '.join(protocol.changes)}" if protocol.changes else ""
        raise UserError(f"{where}: {field!r} cannot be changed{may}")
    if value not in protocol.changes[field]:
        raise UserError(
            f"{where}: {field} is one of {', '.join(protocol.changes[field])}, not {value!r}"
        )
    return field, value
