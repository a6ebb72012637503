"""Protocols: how a bench's samples become prompts, and how its answers become a number.

`tasks/<bench>/protocols.yaml` holds them. Three names mean the same in every bench: `official` is
what the benchmark's authors run, `lampe` is what LaMPE's authors ran, and `fair` gives every
method the same prompt, truncated as token ids. Scores of different protocols never share a table.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from lampe_eval.cards import Card, read_card
from lampe_eval.errors import UserError, unknown_name

TOKENS_PER_K: Final = 1024

Decoding = Literal["text", "special_tokens", "single_line"]
PlanLength = Literal["prompt", "prompt+answer"]
Plan = Literal["prompt", "document"]
BabilongScorer = Literal["labels", "babilong", "babilong_2024"]
NeedleScorer = Literal["one_name", "contains", "EM", "lastline_contains", "lastline_EM"]
GraphScorer = Literal["lm_eval", "lm_eval_flexible", "openbench", "nemo_gym"]
Scorer = Literal["official", "lampe", "helmet"] | BabilongScorer | NeedleScorer | GraphScorer


class Protocol(Card):
    """Choices that are fixed besides model, method and task.

    The length L of a cell is the number of tokens of prompt and answer together.

    Attributes:
        windows: default lengths, as multiples of the model's context window.
        tasks: tasks that the protocol covers; all tasks of the bench if empty.
        prompts: source of the wording: "own" (ours), "official" (the benchmark's files), "2024"
            (RULER's of that year), "lampe" (LaMPE's), "ready" (prompts read from files), or
            "no-examples" and "bare" (BABILong's without its examples, or without any instruction).
        release_prompts: whether a method gets the prompts that its authors gave to it alone.
        chat: "template" for the tokenizer's chat template if it has one, "upstream" for what the
            benchmark's own code puts around prompts, or "none".
        bos: "once", or "added" if the tokenizer adds a BOS token whatever the prompt begins with.
        truncation: part that is removed from a prompt that is too long; "none" leaves the prompt
            too long, "skip" leaves the sample out.
        truncate_as: what is truncated: "ids" for token ids, "text" for tokens that are decoded and
            encoded again, or "words" as L-Eval counts them.
        tokens_per_k: tokens that a prompt may have for every 1024 tokens of L; 1000 for scripts
            that write "16k" as 16000.
        reserved_tokens: tokens of that which are kept free; "answer" for as many as the answer
            may have.
        plan_length: tokens that a method plans its positions for: "prompt" as the releases do,
            where an answer may leave the window, or "prompt+answer" for as many as the answer may
            have as well. Runs that were stored without this field planned for the prompt.
        plan: what has a plan of its own: each "prompt", or each "document". All questions about a
            document are then read under the plan of the longest one, so that its keys and values
            are the same for all of them, and are computed once. A run's description leaves "prompt"
            out.
        decoding: "text" decodes answers without special tokens, "special_tokens" with them, and
            "single_line" with them and with all white space collapsed to single spaces.
        scorer: whose scorer is used, or which one by its name, for benches with several.
        average: "categories" averages over categories of tasks first, "tasks" over all tasks.
        max_new_tokens: tokens of an answer, for benches where no task says it.
        stop_at_newline: tasks whose answer ends with its first line.
        batches: whether samples may run together where memory allows; published numbers are made
            one sample at a time.
        length_bands: whether a cell reports its score in bands of the prompt's length as well.
        changes: fields that a user may change, with the values they may have.
    """

    windows: tuple[int, ...] = (1, 2, 4)
    tasks: tuple[str, ...] = ()
    prompts: Literal["own", "official", "2024", "lampe", "ready", "no-examples", "bare"]
    release_prompts: bool = False
    chat: Literal["template", "upstream", "none"]
    bos: Literal["once", "added"] = "once"
    truncation: Literal["middle", "left", "right", "none", "skip"]
    truncate_as: Literal["ids", "text", "words"] = "ids"
    tokens_per_k: Literal[1000, 1024] = TOKENS_PER_K
    reserved_tokens: int | Literal["answer"] = "answer"
    plan_length: PlanLength = "prompt"
    plan: Plan = "prompt"
    decoding: Decoding = "text"
    scorer: Scorer = "official"
    average: Literal["categories", "tasks"] = "tasks"
    max_new_tokens: int | None = None
    stop_at_newline: tuple[str, ...] = ()
    batches: bool = True
    length_bands: bool = False
    changes: Mapping[str, tuple[str, ...]] = {}

    def prompt_limit(self, length: int, answer_tokens: int) -> int:
        """Return how many tokens a prompt may have.

        Args:
            length: tokens of the cell.
            answer_tokens: tokens that the answer may have.

        Raises:
            UserError: if no token is left for the prompt.
        """
        reserved = answer_tokens if self.reserved_tokens == "answer" else self.reserved_tokens
        # LongBench's script for 16k models has 15500 tokens: 16384 · 1000 / 1024, less 500.
        available = length * self.tokens_per_k // TOKENS_PER_K
        if available - reserved < 1:
            raise UserError(
                f"length {length} leaves no token for a prompt: the protocol reserves {reserved} "
                f"of {available}; use longer --lengths"
            )
        return available - reserved


class Protocols(Card):
    """Protocols of a bench by name: the schema of a `protocols.yaml`."""

    protocols: dict[str, Protocol] = Field(min_length=1)


def bench_protocols(folder: Path) -> dict[str, Protocol]:
    """Return the protocols in a bench's folder, by name."""
    return read_card(folder / "protocols.yaml", Protocols).protocols


def parse_protocol(bench: str, text: str, folder: Path) -> Protocol:
    """Return a protocol of a bench by name, with the user's changes.

    Args:
        bench: the bench that the protocol belongs to, for messages.
        text: a name such as `fair`, or with changes `fair:truncation=left,chat=none`.
        folder: folder with the `protocols.yaml`.

    Raises:
        UserError: for a name, a field or a value that does not exist.
    """
    name, _, changes = text.partition(":")
    protocols = bench_protocols(folder)
    if name not in protocols:
        raise unknown_name(
            f"protocol of {bench}",
            name,
            protocols,
            f"lampe-eval list protocols; {bench} has {', '.join(protocols)}",
        )
    protocol = protocols[name]
    update = {}
    for part in changes.split(","):
        if part.strip():
            field, _, value = (item.strip() for item in part.partition("="))
            where = f"--protocol: {name!r} of {bench}"
            if field == "plan" and not any("plan" in each.changes for each in protocols.values()):
                raise UserError(
                    f"{where}: 'plan' is for questions about one document, which {bench} does not "
                    "have; leave it out"
                )
            _check_change(where, protocol, field, value)
            update[field] = value
    # Validated again, because a number among the changes is a text until then.
    return Protocol.model_validate(protocol.model_dump() | update)


def _check_change(where: str, protocol: Protocol, field: str, value: str) -> None:
    """Refuse a change that the bench would ignore, since the label of a table shows all changes."""
    if field not in protocol.changes:
        changeable = f"; you can change: {', '.join(protocol.changes)}" if protocol.changes else ""
        raise UserError(f"{where}: {field!r} cannot be changed{changeable}")
    if value not in protocol.changes[field]:
        raise UserError(
            f"{where}: {field} is one of {', '.join(protocol.changes[field])}, not {value!r}"
        )
