"""Generated English: training text of the pocket model, and a haystack that needs no download.

A *world* fixes the facts of a text: professions, homes, owners of things and so on. A *story*
follows a few people and things of one world. It states facts, repeats them much later in other
words, and tells small events whose outcome it mentions again. A *text* is many stories of one
world. So a reader who remembers more of a text can predict the rest of it better: perplexity falls
with context, long after the first page.

Everything is drawn from closed lists of words, and every draw is a function of the seed alone. The
pocket model was trained on this text: any change of a list, a template or the order of draws
changes the text, and the committed weights no longer belong to it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

NAMES = tuple(
    """
    Ada Anton Bela Bruno Clara Conrad Dora Edgar Elena Emil Felix Frida Greta Hanna Hugo Ida Igor
    Jana Jonas Karla Leo Lina Marek Mira Nadia Nils Olga Oskar Paula Petra Rita Robin Selma Simon
    Tanja Tomas Ursula Viktor Wanda Yara
    """.split()
)
PROFESSIONS = tuple(
    """
    baker barber builder butcher captain carpenter clerk cook dancer doctor driver farmer fisher
    gardener guard guide hunter judge keeper mason miller nurse painter pilot printer sailor
    singer smith tailor teacher weaver writer
    """.split()
)
PLACES = tuple(
    """
    barn bakery bridge cabin castle cave cellar chapel church court dock farm field forest
    fountain garden gate harbor hill hotel island kitchen lake library lighthouse market meadow
    mill museum orchard palace park pier quarry river school shop square stable station street
    temple theater tower town tunnel valley village well yard
    """.split()
)
THINGS = tuple(
    """
    anchor basket bell blanket boat book bottle bowl box brush bucket candle carpet chain chair
    clock cup curtain desk doll door drum fan flag hammer hat jar kettle key knife ladder lamp
    letter map mask mirror needle net pan pen picture pillow plate pot ring rope saddle shield
    shoe spoon statue stone sword table tent tool toy trunk vase wheel
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
    bear bird cat cow crow dog donkey duck fox frog goat goose hen horse lamb mouse parrot pig
    pony rabbit sheep snake swan turtle
    """.split()
)
FOODS = tuple(
    """
    apples beans berries bread butter cake carrots cheese cherries corn eggs fish grapes honey
    lemons nuts olives pears plums potatoes rice salad soup tomatoes
    """.split()
)
INSTRUMENTS = tuple(
    """
    banjo cello fiddle flute guitar harp horn lute organ piano trumpet viola
    """.split()
)
QUALITIES = tuple(
    """
    ancient bitter bright broken calm clever cold deep dry dusty empty famous frozen gentle heavy
    hidden hollow lonely narrow old proud quiet rough rusty sacred sharp silent simple small soft
    strange tall tiny warm wild young
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
    "Today", "Later", "Then", "At noon", "At night", "In the morning", "In the evening",
    "After the rain", "Before dinner", "One day", "On Monday", "On Friday", "In spring",
    "In winter",
)  # fmt: skip

_WORD_LISTS = (
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
    """Return every word that a text can contain, in the case in which it appears."""
    words: set[str] = set()
    for group in (*_WORD_LISTS, *_TEMPLATES):
        for entry in group:
            words.update(re.findall(r"[A-Za-z]+", re.sub(r"{\w+}", " ", entry)))
    # Sorted: ids of words must not depend on the order of a set, which changes by process.
    return tuple(sorted(words))


VOCABULARY: tuple[str, ...] = _vocabulary()

Facts = Mapping[str, str]
"""Facts of a person or a thing, by the placeholders of the templates."""


@dataclass(frozen=True)
class World:
    """Facts of one text.

    Attributes:
        people: facts of each person.
        things: facts of each thing.
    """

    people: tuple[Facts, ...]
    things: tuple[Facts, ...]

    @classmethod
    def draw(cls, rng: Random, people: int = 8, things: int = 8) -> "World":
        """Return a random world with that many people and things."""
        names = rng.sample(NAMES, people)
        facts_of_people = []
        for name in names:
            others = [other for other in names if other != name]
            facts_of_people.append(_person(rng, name, others))
        kinds = rng.sample(THINGS, things)
        facts_of_things = [_thing(rng, thing, names) for thing in kinds]
        return cls(tuple(facts_of_people), tuple(facts_of_things))


# The facts are drawn one after another; the order is part of the generated text.


def _person(rng: Random, name: str, others: list[str]) -> Facts:
    home, fear = rng.sample(PLACES, 2)
    profession = rng.choice(PROFESSIONS)
    colour = rng.choice(COLOURS)
    animal = rng.choice(ANIMALS)
    food = rng.choice(FOODS)
    instrument = rng.choice(INSTRUMENTS)
    friend = rng.choice(others)
    return {
        "name": name,
        "profession": profession,
        "home": home,
        "fear": fear,
        "colour": colour,
        "animal": animal,
        "food": food,
        "instrument": instrument,
        "friend": friend,
    }


def _thing(rng: Random, thing: str, names: list[str]) -> Facts:
    owner, giver = rng.sample(names, 2)
    colour = rng.choice(COLOURS)
    material = rng.choice(MATERIALS)
    quality = rng.choice(QUALITIES)
    place = rng.choice(PLACES)
    return {
        "thing": thing,
        "colour": colour,
        "material": material,
        "quality": quality,
        "place": place,
        "owner": owner,
        "giver": giver,
    }


def _fill_template(rng: Random, templates: tuple[str, ...], facts: Facts, **more: str) -> str:
    """Return a random template, filled with facts and more values."""
    return rng.choice(templates).format(**{**facts, **more})


@dataclass(frozen=True)
class Event:
    """Event in the life of a person or a thing.

    Attributes:
        subject: name of the person or the thing.
        sentence: sentence that tells the event.
        outcome: sentence that mentions its outcome later.
    """

    subject: str
    sentence: str
    outcome: str


def _journey(rng: Random, person: Facts) -> Event:
    place = rng.choice(PLACES)
    time = rng.choice(TIMES)
    sentence = _fill_template(rng, MOVES, person, place=place, when=time)
    outcome = _fill_template(rng, STAYS, person, place=place)
    return Event(person["name"], sentence, outcome)


def _handover(rng: Random, thing: Facts, giver: Facts, taker: Facts) -> Event:
    roles = {"name": giver["name"], "other": taker["name"], "other_colour": taker["colour"]}
    time = rng.choice(TIMES)
    sentence = _fill_template(rng, HANDOVERS, thing, **roles, when=time)
    outcome = _fill_template(rng, HOLDINGS, thing, **roles)
    return Event(thing["thing"], sentence, outcome)


def _event(rng: Random, cast: list[Facts], props: list[Facts]) -> Event:
    first, second = rng.sample(cast, 2)
    if rng.random() < 0.5:
        return _journey(rng, first)
    thing = rng.choice(props)
    return _handover(rng, thing, first, second)


def _sentences(rng: Random, world: World) -> Iterator[str]:
    """Yield the sentences of one story."""
    cast = rng.sample(world.people, 3)
    props = rng.sample(world.things, 2)
    first, second = cast[0]["name"], cast[1]["name"]
    yield _fill_template(rng, OPENINGS, props[0], first=first, second=second)
    outcomes: dict[str, str] = {}
    for _ in range(rng.randint(14, 24)):
        kind = rng.random()
        if kind < 0.5:
            person = rng.choice(cast)
            yield _fill_template(rng, PERSON_FACTS, person)
        elif kind < 0.8:
            thing = rng.choice(props)
            yield _fill_template(rng, THING_FACTS, thing)
        elif outcomes and kind < 0.9:
            oldest = next(iter(outcomes))
            yield outcomes.pop(oldest)
        else:
            event = _event(rng, cast, props)
            yield event.sentence
            # A new event of the same subject replaces an outcome that was not mentioned yet, since
            # it would no longer be true.
            outcomes[event.subject] = event.outcome
    yield from outcomes.values()


def story(rng: Random, world: World | None = None) -> str:
    """Return a story in paragraphs, from the given world or from a world of its own."""
    sentences = list(_sentences(rng, world or World.draw(rng)))
    paragraphs: list[str] = []
    while sentences:
        size = rng.randint(4, 8)
        paragraphs.append(" ".join(sentences[:size]))
        del sentences[:size]
    return "\n".join(paragraphs)


def text(seed: int | str, words: int) -> str:
    """Return stories of one world with at least `words` words.

    A shorter text is the beginning of a longer one with the same seed.
    """
    rng = Random(f"text {seed}")
    world = World.draw(rng)
    stories: list[str] = []
    count = 0
    while count < words:
        stories.append(story(rng, world))
        count += len(stories[-1].split())
    return "\n\n".join(stories)
