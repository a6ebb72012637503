"""Small worlds: facts about people, rooms and things, with a question that they answer.

Five kinds of worlds have the semantics of bAbI's first five tasks (arXiv 1502.05698) in words of
our own:

one_place  qa1  people move between rooms: where is somebody?
carried    qa2  people also take and put down things, which go where their holders go: where is it?
before     qa3  the same: where was a thing right before it came to the room where it is now?
map        qa4  two facts on how three rooms lie: which room lies on one side of another?
gift       qa5  people also give things: what was given, by whom, to whom?

No name is a word of the pocket language, nor part of another name. Every draw is a function of
(kind, seed, index) alone.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

PEOPLE = ("Amara", "Bjorn", "Celia", "Dmitri", "Farah", "Gustav", "Hilal", "Ingrid")
ROOMS = ("attic", "balcony", "laundry", "pantry", "scullery", "veranda")
THINGS = ("compass", "lantern", "thimble", "violin")
NAMES = (*PEOPLE, *ROOMS, *THINGS)

MOVES = (
    "{who} enters the {room}.",
    "{who} goes over to the {room}.",
    "{who} has moved on to the {room}.",
    "{who} walks into the {room}.",
)
TAKES = (
    "{who} gets hold of the {thing}.",
    "{who} picks up the {thing}.",
    "{who} takes the {thing} along.",
)
DROPS = (
    "{who} leaves the {thing} behind.",
    "{who} lets go of the {thing}.",
    "{who} puts the {thing} down.",
)
GIFTS = (
    "{who} hands the {thing} to {other}.",
    "{who} passes the {thing} on to {other}.",
    "{who} makes {other} a present of the {thing}.",
)
OPPOSITES = {"north": "south", "south": "north", "east": "west", "west": "east"}

PEOPLE_OF_A_WORLD = 4
THINGS_OF_A_WORLD = 3


@dataclass(frozen=True)
class Story:
    """Facts in their order, and a question that they answer.

    Attributes:
        facts: one sentence each.
        question: the question.
        answer: one word.
        labels: possible answers.
        last_needed: number of the last fact that is needed for the answer.
    """

    facts: tuple[str, ...]
    question: str
    answer: str
    labels: tuple[str, ...]
    last_needed: int


@dataclass(frozen=True)
class _Question:
    text: str
    answer: str
    last_needed: int


@dataclass(frozen=True)
class _Stay:
    """Stay of a thing in a room, from the fact that brought it there on."""

    room: str
    fact: int


@dataclass(frozen=True)
class _Gift:
    giver: str
    thing: str
    taker: str
    fact: int


@dataclass
class _World:
    """World while its facts happen.

    Attributes:
        rng: chooses what happens.
        people: its people.
        things: its things.
        facts: what has happened.
        rooms: room of everybody who has moved.
        moved: last move of everybody, as the number of a fact.
        holders: holder of each thing that somebody has.
        stays: stays of each thing that has been taken, in their order.
        handled: last fact by which a thing was taken, put down or carried.
        gifts: gifts in their order.
    """

    rng: Random
    people: list[str]
    things: list[str]
    facts: list[str] = field(default_factory=list)
    rooms: dict[str, str] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)
    holders: dict[str, str] = field(default_factory=dict)
    stays: dict[str, list[_Stay]] = field(default_factory=dict)
    handled: dict[str, int] = field(default_factory=dict)
    gifts: list[_Gift] = field(default_factory=list)

    @classmethod
    def drawn(cls, rng: Random) -> "_World":
        """Return a world in which nothing has happened."""
        people = rng.sample(PEOPLE, PEOPLE_OF_A_WORLD)
        return cls(rng, people, rng.sample(THINGS, THINGS_OF_A_WORLD))

    def move(self) -> bool:
        """Let somebody move to another room."""
        who = self.rng.choice(self.people)
        room = self.rng.choice([room for room in ROOMS if room != self.rooms.get(who)])
        self._tell(MOVES, who=who, room=room)
        self.rooms[who] = room
        self.moved[who] = len(self.facts) - 1
        for thing, holder in self.holders.items():
            if holder == who:
                self._stay(thing, room)
        return True

    def take(self) -> bool:
        """Let somebody take a thing that lies in the same room, or was not seen yet."""
        options: list[tuple[str, str]] = []
        for who, room in self.rooms.items():
            for thing in self.things:
                seen = self.stays.get(thing)
                if thing not in self.holders and (not seen or seen[-1].room == room):
                    options.append((who, thing))
        if not options:
            return False
        who, thing = self.rng.choice(options)
        self._tell(TAKES, who=who, thing=thing)
        self.holders[thing] = who
        self.handled[thing] = len(self.facts) - 1
        if thing not in self.stays:
            self._stay(thing, self.rooms[who])
        return True

    def drop(self) -> bool:
        """Let somebody put a thing down."""
        if not self.holders:
            return False
        thing = self.rng.choice(list(self.holders))
        self._tell(DROPS, who=self.holders.pop(thing), thing=thing)
        self.handled[thing] = len(self.facts) - 1
        return True

    def give(self) -> bool:
        """Let somebody give a thing to somebody in the same room."""
        options: list[tuple[str, str, str]] = []
        for thing, who in self.holders.items():
            for other, room in self.rooms.items():
                if other != who and room == self.rooms[who]:
                    options.append((who, thing, other))
        if not options:
            return False
        who, thing, other = self.rng.choice(options)
        self._tell(GIFTS, who=who, thing=thing, other=other)
        self.holders[thing] = other
        self.gifts.append(_Gift(who, thing, other, len(self.facts) - 1))
        return True

    def _tell(self, wordings: tuple[str, ...], **names: str) -> None:
        self.facts.append(self.rng.choice(wordings).format(**names))

    def _stay(self, thing: str, room: str) -> None:
        self.handled[thing] = len(self.facts) - 1
        self.stays.setdefault(thing, []).append(_Stay(room, len(self.facts) - 1))


Ask = Callable[[_World], Iterator[_Question]]
"""Function that yields the questions that a world answers."""


@dataclass(frozen=True)
class _Kind:
    """Kind of worlds.

    Attributes:
        least: smallest number of facts.
        most: largest number of facts.
        events: what may happen, as names of methods of `_World`, repeated by their weights.
        ask: yields the questions.
    """

    least: int
    most: int
    events: tuple[str, ...]
    ask: Ask


def draw_story(kind: str, seed: int, index: int) -> Story:
    """Return a story of a kind.

    Args:
        kind: "one_place", "carried", "before", "map" or "gift".
        seed: seed of the run.
        index: number of the sample.
    """
    rng = Random(f"small world {kind} {seed} {index}")
    if kind == "map":
        return _draw_map(rng)
    while True:
        story = _try_story(rng, KINDS[kind])
        if story:
            return story


def _try_story(rng: Random, kind: _Kind) -> Story | None:
    """Return a story, or None where the facts that were drawn answer no question of the kind."""
    world = _World.drawn(rng)
    count = rng.randint(kind.least, kind.most)
    while len(world.facts) < count:
        # Most events need somebody who is somewhere; a move is always possible.
        if not getattr(world, rng.choice(kind.events))():
            world.move()
    questions = list(kind.ask(world))
    if not questions:
        return None
    question = rng.choice(questions)
    labels = ROOMS if question.answer in ROOMS else (*world.people, *world.things)
    facts = tuple(world.facts)
    return Story(facts, question.text, question.answer, labels, question.last_needed)


def _draw_map(rng: Random) -> Story:
    """Return two facts on three rooms in a line, and a question about the middle one."""
    first, middle, last = rooms = rng.sample(ROOMS, 3)
    side = rng.choice(list(OPPOSITES))
    # first lies on that side of middle, and middle on that side of last
    facts = [
        f"The {first} lies {side} of the {middle}.",
        f"The {middle} lies {side} of the {last}.",
    ]
    order = rng.sample(range(2), 2)
    opposite = OPPOSITES[side]
    number, text, answer = rng.choice(
        [
            (0, f"What lies {side} of the {middle}?", first),
            (0, f"The {middle} lies {opposite} of which room?", first),
            (1, f"What lies {opposite} of the {middle}?", last),
            (1, f"The {middle} lies {side} of which room?", last),
        ]
    )
    told = tuple(facts[place] for place in order)
    return Story(told, text, answer, tuple(rooms), order.index(number))


def _ask_one_place(world: _World) -> Iterator[_Question]:
    for who, room in world.rooms.items():
        yield _Question(f"In which room is {who} now?", room, world.moved[who])


def _ask_carried(world: _World) -> Iterator[_Question]:
    for thing, stays in world.stays.items():
        yield _Question(f"In which room is the {thing} now?", stays[-1].room, world.handled[thing])


def _ask_before(world: _World) -> Iterator[_Question]:
    for thing, stays in world.stays.items():
        rooms = [stay.room for stay in stays]
        if len(rooms) > 1 and rooms.count(rooms[-1]) == 1:
            text = f"In which room was the {thing} right before it came to the {rooms[-1]}?"
            yield _Question(text, rooms[-2], stays[-1].fact)


def _ask_gift(world: _World) -> Iterator[_Question]:
    """Yield the questions about the last gift to which no other gift gives another answer."""
    if not world.gifts:
        return
    *earlier, last = world.gifts
    giver, thing, taker = last.giver, last.thing, last.taker
    if not any((gift.giver, gift.taker) == (giver, taker) for gift in earlier):
        yield _Question(f"What did {giver} give to {taker}?", thing, last.fact)
        yield _Question(f"What did {taker} get from {giver}?", thing, last.fact)
    if not any((gift.giver, gift.thing) == (giver, thing) for gift in earlier):
        yield _Question(f"Who got the {thing} from {giver}?", taker, last.fact)
    if not any((gift.thing, gift.taker) == (thing, taker) for gift in earlier):
        yield _Question(f"Who gave the {thing} to {taker}?", giver, last.fact)
    if not any(gift.thing == thing for gift in earlier):
        yield _Question(f"Who gave the {thing} away?", giver, last.fact)


KINDS: Mapping[str, _Kind] = {
    "one_place": _Kind(2, 10, ("move",), _ask_one_place),
    "carried": _Kind(4, 24, ("move", "move", "move", "take", "drop"), _ask_carried),
    "before": _Kind(6, 32, ("move", "move", "move", "take", "drop"), _ask_before),
    "gift": _Kind(6, 24, ("move", "move", "take", "give", "give"), _ask_gift),
}
"""Kinds of worlds in which something happens, by name."""
