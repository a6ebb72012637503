"""Second reading of small worlds: it knows the sentences alone, nothing of how they were drawn."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

MOVE = re.compile(r"(\w+) (?:enters|goes over to|has moved on to|walks into) the (\w+)\.")
TAKE = re.compile(r"(\w+) (?:gets hold of|picks up|takes) the (\w+)(?: along)?\.")
DROP = re.compile(r"(\w+) (?:leaves|lets go of|puts) the (\w+)(?: behind| down)?\.")
GIVE = re.compile(r"(\w+) (?:hands|passes) the (\w+) (?:on )?to (\w+)\.")
PRESENT = re.compile(r"(\w+) makes (\w+) a present of the (\w+)\.")
LIES = re.compile(r"The (\w+) lies (\w+) of the (\w+)\.")
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}


def read_answer(facts: Sequence[str], question: str) -> str:
    """Return the answer to a question, read off the facts.

    Raises:
        ValueError: for a sentence that nobody understands, or a question without one answer.
    """
    for pattern, answers in (
        (r"What lies (\w+) of the (\w+)\?", _what_lies),
        (r"The (\w+) lies (\w+) of which room\?", _of_which_room),
        (r"In which room is (?:the )?(\w+) now\?", _now),
        (r"In which room was the (\w+) right before it came to the (\w+)\?", _before),
        (r"What did (\w+) give to (\w+)\?", lambda f, a, b: _gifts(f, "thing", giver=a, taker=b)),
        (r"What did (\w+) get from (\w+)\?", lambda f, a, b: _gifts(f, "thing", giver=b, taker=a)),
        (
            r"Who got the (\w+) from (\w+)\?",
            lambda f, a, b: _gifts(f, "taker", thing=a, giver=b),
        ),
        (
            r"Who gave the (\w+) to (\w+)\?",
            lambda f, a, b: _gifts(f, "giver", thing=a, taker=b),
        ),
        (r"Who gave the (\w+) away\?", lambda f, a: _gifts(f, "giver", thing=a)),
    ):
        match = re.fullmatch(pattern, question)
        if match:
            found = list(dict.fromkeys(answers(facts, *match.groups())))  # type: ignore[operator]
            if len(found) != 1:
                raise ValueError(f"{question} has the answers {found}")
            return str(found[0])
    raise ValueError(f"nobody understands {question}")


def _lies(facts: Sequence[str]) -> set[tuple[str, str, str]]:
    lies = set()
    for fact in facts:
        match = LIES.fullmatch(fact)
        assert match, fact
        one, side, other = match.groups()
        lies |= {(one, side, other), (other, OPPOSITE[side], one)}
    return lies


def _what_lies(facts: Sequence[str], side: str, room: str) -> list[str]:
    return [one for one, direction, other in _lies(facts) if (direction, other) == (side, room)]


def _of_which_room(facts: Sequence[str], room: str, side: str) -> list[str]:
    return [other for one, direction, other in _lies(facts) if (one, direction) == (room, side)]


def _places(facts: Sequence[str], asked: str) -> list[str]:
    """Return the rooms of a person or thing in their order, followed through the facts backwards.

    The place of a thing is that of its holder while there is one.
    """
    places: list[str] = []
    for stop in range(1, len(facts) + 1):
        place = _place_at(facts[:stop], asked)
        if place and (not places or places[-1] != place):
            places.append(place)
    return places


def _place_at(facts: Sequence[str], asked: str) -> str:
    """Return where somebody or something is after the facts; empty if they do not say it."""
    for number in range(len(facts) - 1, -1, -1):
        fact = facts[number]
        move = MOVE.fullmatch(fact)
        if move:
            if move[1] == asked:
                return move[2]
            continue
        take, drop = TAKE.fullmatch(fact), DROP.fullmatch(fact)
        giver, thing, taker = next(_given([fact]), ("", "", ""))
        if take and take[2] == asked:
            return _place_at(facts, take[1])
        if drop and drop[2] == asked:
            return _place_at(facts[:number], drop[1])
        if thing == asked:
            return _place_at(facts, taker)
        if not (take or drop or giver):
            raise ValueError(f"nobody understands {fact}")
    return ""


def _now(facts: Sequence[str], asked: str) -> list[str]:
    return _places(facts, asked)[-1:]


def _before(facts: Sequence[str], thing: str, room: str) -> list[str]:
    return [one for one, other in pairwise(_places(facts, thing)) if other == room]


def _given(facts: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield giver, thing and taker of each gift."""
    for fact in facts:
        give, present = GIVE.fullmatch(fact), PRESENT.fullmatch(fact)
        if give:
            yield give[1], give[2], give[3]
        elif present:
            yield present[1], present[3], present[2]


def _gifts(facts: Sequence[str], wanted: str, **known: str) -> list[str]:
    found = []
    for giver, thing, taker in _given(facts):
        gift = {"giver": giver, "thing": thing, "taker": taker}
        if all(gift[key] == value for key, value in known.items()):
            found.append(gift[wanted])
    return found
