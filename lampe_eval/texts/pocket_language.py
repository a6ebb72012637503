"""Generated English: the text of the pocket model, and a haystack that needs no download.

A *world* fixes who works as what, lives where, owns which thing and so on. A *story* follows a few people and things of
one world: it states facts, restates them much later in other words, and tells small events whose outcome it comes back
to. A *text* is many stories of one world. So a reader who remembers more of a text is less surprised by the rest of it:
perplexity falls with context, long after the first page.

Everything is drawn from closed lists of words, and every draw is a function of the seed alone.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

NAMES = tuple(
    """
    Ada Anton Bela Bruno Clara Conrad Dora Edgar Elena Emil Felix Frida Greta Hanna Hugo Ida Igor Jana Jonas Karla
    Leo Lina Marek Mira Nadia Nils Olga Oskar Paula Petra Rita Robin Selma Simon Tanja Tomas Ursula Viktor Wanda
    Yara
    """.split()
)
PROFESSIONS = tuple(
    """
    baker barber builder butcher captain carpenter clerk cook dancer doctor driver farmer fisher gardener guard
    guide hunter judge keeper mason miller nurse painter pilot printer sailor singer smith tailor teacher weaver
    writer
    """.split()
)
PLACES = tuple(
    """
    barn bakery bridge cabin castle cave cellar chapel church court dock farm field forest fountain garden gate
    harbor hill hotel island kitchen lake library lighthouse market meadow mill museum orchard palace park pier
    quarry river school shop square stable station street temple theater tower town tunnel valley village well
    yard
    """.split()
)
THINGS = tuple(
    """
    anchor basket bell blanket boat book bottle bowl box brush bucket candle carpet chain chair clock cup curtain
    desk doll door drum fan flag hammer hat jar kettle key knife ladder lamp letter map mask mirror needle net pan
    pen picture pillow plate pot ring rope saddle shield shoe spoon statue stone sword table tent tool toy trunk
    vase wheel
    """.split()
)
COLOURS = tuple(
    """
    black blue brown crimson golden gray green pink purple red silver violet white yellow
    """.split()
)
MATERIALS = tuple(
    """
    brass bronze clay cloth copper glass iron leather marble paper steel straw tin wood
    """.split()
)
ANIMALS = tuple(
    """
    bear bird cat cow crow dog donkey duck fox frog goat goose hen horse lamb mouse parrot pig pony rabbit sheep
    snake swan turtle
    """.split()
)
FOODS = tuple(
    """
    apples beans berries bread butter cake carrots cheese cherries corn eggs fish grapes honey lemons nuts olives
    pears plums potatoes rice salad soup tomatoes
    """.split()
)
INSTRUMENTS = tuple(
    """
    banjo cello fiddle flute guitar harp horn lute organ piano trumpet viola
    """.split()
)
QUALITIES = tuple(
    """
    ancient bitter bright broken calm clever cold deep dry dusty empty famous frozen gentle heavy hidden hollow
    lonely narrow old proud quiet rough rusty sacred sharp silent simple small soft strange tall tiny warm wild
    young
    """.split()
)

PERSON_FACTS = (
    "{name} works as a {profession}.",
    "{name} lives near the {home}.",
    "{name} wears a {colour} coat.",
    "{name} has a {animal}.",
    "{name} likes {food} more than anything.",
    "{name} plays the {instrument}.",
    "The best friend of {name} is {friend}.",
    "{name} is afraid of the {fear}.",
    "The {profession} who lives near the {home} is {name}.",
    "{name}, who wears a {colour} coat, plays the {instrument}.",
    "The {animal} of {name} sleeps near the {home}.",
    "Everyone knows that {name} plays the {instrument} for {friend}.",
    "On quiet days {name} eats {food} and plays the {instrument}.",
    "As a {profession}, {name} often thinks of {food}.",
    "{name} and {friend} feed the {animal} with {food}.",
    "People see the {colour} coat of {name} near the {home}.",
    "Only {friend} knows why {name} never visits the {fear}.",
)
THING_FACTS = (
    "The {thing} is {colour} and made of {material}.",
    "The {colour} {thing} belongs to {owner}.",
    "The {thing} of {owner} is kept in the {place}.",
    "Nobody but {owner} may touch the {material} {thing}.",
    "The {thing} in the {place} was a gift from {giver}.",
    "{giver} once found the {colour} {thing} and gave it to {owner}.",
    "There is a {colour} {thing} in the {place}.",
    "The old {thing} looks {quality}, because it is made of {material}.",
)
MOVES = (
    "{when} {name} went to the {place}.",
    "{when} {name} walked with the {animal} to the {place}.",
    "{when} {friend} sent {name} to the {place}.",
)
STAYS = (
    "{name} was still in the {place}.",
    "{name} waited for {friend} in the {place}.",
    "The {profession} saw nobody else in the {place}.",
)
HANDOVERS = (
    "{when} {name} gave the {colour} {thing} to {other}.",
    "{when} {other} came by and took the {thing} from {name}.",
)
HOLDINGS = (
    "{other} now holds the {colour} {thing}.",
    "So the {material} {thing} was with {other} again.",
    "{other} put the {thing} under the {other_colour} coat.",
)
OPENINGS = (
    "This is a story about {first}, {second} and the {colour} {thing}.",
    "Long ago {first} and {second} lost the {thing} of {owner}.",
    "Listen to what {first} told {second} about the {material} {thing}.",
)
TIMES = (
    "Today", "Later", "Then", "At noon", "At night", "In the morning", "In the evening", "After the rain",
    "Before dinner", "One day", "On Monday", "On Friday", "In spring", "In winter",
)  # fmt: skip

_LISTS = (
    NAMES,
    PROFESSIONS,
    PLACES,
    THINGS,
    COLOURS,
    MATERIALS,
    ANIMALS,
    FOODS,
    INSTRUMENTS,
    QUALITIES,
    TIMES,
)
_TEMPLATES = (PERSON_FACTS, THING_FACTS, MOVES, STAYS, HANDOVERS, HOLDINGS, OPENINGS)


def _vocabulary() -> tuple[str, ...]:
    """Every word that a text can contain, in the case in which it appears."""
    plain = " ".join(
        re.sub(r"{\w+}", "", entry) for group in (*_LISTS, *_TEMPLATES) for entry in group
    )
    return tuple(sorted(set(re.findall(r"[A-Za-z]+", plain))))


VOCABULARY: tuple[str, ...] = _vocabulary()

Facts = Mapping[str, str]


@dataclass(frozen=True)
class World:
    """The facts of one text: what is true of each person and of each thing, by the placeholders of the templates."""

    people: tuple[Facts, ...]
    things: tuple[Facts, ...]

    @classmethod
    def draw(cls, rng: Random, people: int = 8, things: int = 8) -> "World":
        names = rng.sample(NAMES, people)
        return cls(
            people=tuple(
                _person(rng, name, [other for other in names if other != name]) for name in names
            ),
            things=tuple(_thing(rng, thing, names) for thing in rng.sample(THINGS, things)),
        )


def _person(rng: Random, name: str, others: list[str]) -> Facts:
    home, fear = rng.sample(PLACES, 2)
    return {
        "name": name,
        "profession": rng.choice(PROFESSIONS),
        "home": home,
        "fear": fear,
        "colour": rng.choice(COLOURS),
        "animal": rng.choice(ANIMALS),
        "food": rng.choice(FOODS),
        "instrument": rng.choice(INSTRUMENTS),
        "friend": rng.choice(others),
    }


def _thing(rng: Random, thing: str, names: list[str]) -> Facts:
    owner, giver = rng.sample(names, 2)
    return {
        "thing": thing,
        "colour": rng.choice(COLOURS),
        "material": rng.choice(MATERIALS),
        "quality": rng.choice(QUALITIES),
        "place": rng.choice(PLACES),
        "owner": owner,
        "giver": giver,
    }


def _told(rng: Random, templates: tuple[str, ...], facts: Facts, **more: str) -> str:
    return rng.choice(templates).format(**{**facts, **more})


@dataclass(frozen=True)
class Event:
    """Something that happens to a person or a thing, and the outcome that is told of it later."""

    subject: str
    told: str
    outcome: str


def _journey(rng: Random, person: Facts) -> Event:
    place = rng.choice(PLACES)
    return Event(
        subject=person["name"],
        told=_told(rng, MOVES, person, place=place, when=rng.choice(TIMES)),
        outcome=_told(rng, STAYS, person, place=place),
    )


def _handover(rng: Random, thing: Facts, giver: Facts, taker: Facts) -> Event:
    roles = {"name": giver["name"], "other": taker["name"], "other_colour": taker["colour"]}
    return Event(
        subject=thing["thing"],
        told=_told(rng, HANDOVERS, thing, **roles, when=rng.choice(TIMES)),
        outcome=_told(rng, HOLDINGS, thing, **roles),
    )


def _event(rng: Random, cast: list[Facts], props: list[Facts]) -> Event:
    first, second = rng.sample(cast, 2)
    return (
        _journey(rng, first)
        if rng.random() < 0.5
        else _handover(rng, rng.choice(props), first, second)
    )


def _sentences(rng: Random, world: World) -> Iterator[str]:
    """One story: facts, events, and the outcome of each event before the next one overtakes it."""
    cast = rng.sample(world.people, 3)
    props = rng.sample(world.things, 2)
    yield _told(rng, OPENINGS, props[0], first=cast[0]["name"], second=cast[1]["name"])
    outcomes: dict[str, str] = {}
    for _ in range(rng.randint(14, 24)):
        kind = rng.random()
        if kind < 0.5:
            yield _told(rng, PERSON_FACTS, rng.choice(cast))
        elif kind < 0.8:
            yield _told(rng, THING_FACTS, rng.choice(props))
        elif outcomes and kind < 0.9:
            yield outcomes.pop(next(iter(outcomes)))
        else:
            event = _event(rng, cast, props)
            yield event.told
            outcomes[event.subject] = event.outcome
    yield from outcomes.values()


def story(rng: Random, world: World | None = None) -> str:
    """A story in paragraphs, of the given world or of one of its own."""
    sentences = list(_sentences(rng, world or World.draw(rng)))
    paragraphs: list[str] = []
    while sentences:
        size = rng.randint(4, 8)
        paragraphs.append(" ".join(sentences[:size]))
        del sentences[:size]
    return "\n".join(paragraphs)


def text(seed: int | str, words: int) -> str:
    """Stories of one world, at least `words` words of them; the shorter text of a seed begins the longer one."""
    rng = Random(f"text {seed}")
    world = World.draw(rng)
    stories: list[str] = []
    count = 0
    while count < words:
        stories.append(story(rng, world))
        count += len(stories[-1].split())
    return "\n\n".join(stories)
