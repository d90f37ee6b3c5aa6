"""The grammar that the bundled model `tiny` is trained on, and the cases held out of it.

Everything is made up here, no text is downloaded.  A document is one to four short sentences: calendar
sentences, facts, a person with an adverb, a person who pulls out an object that fits the theme, or a small
story.  Some combinations (name and adjective, neighbouring sentence and fact, name and theme sentence,
opening and name) never reach the corpus; `held_out` and `held_out_openings` list them, and `corpus` checks
that they are absent.  `known` lists the plain prompts, which the model has seen and must have memorised.

Only the standard library is imported, so a test can use this module without torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import TypeVar

Cases = dict[str, list[tuple[str, str]]]  # task -> [(prompt, the next token, with its leading space)]

Item = TypeVar("Item")

END = "<|endoftext|>"


@dataclass(frozen=True)
class Person:
    """Somebody, with the pronouns."""

    name: str
    subject: str  # he or she
    possessive: str  # his or her


@dataclass(frozen=True)
class Theme:
    """What a text may be about, and what a person pulls out then."""

    noun: str
    plural: str
    place: str
    thing: str


def _people() -> list[Person]:
    """Men and women in turn, so that the held-out cases have both."""
    names = [
        "Mike", "Anna", "Luke", "Mary", "Tom", "Lucy", "Ben", "Emma", "John", "Sara", "Sam", "Kate", "Max",
        "Jane", "Leo", "Lily", "Paul", "Rose", "Peter", "Nina", "David", "Eva", "Jack", "Julia", "James",
        "Alice", "Mark", "Clara", "Adam", "Maria", "Eric", "Laura", "Henry", "Helen", "Oscar", "Ella",
        "Felix", "Nora", "Simon", "Ruth",
    ]  # fmt: skip
    return [Person(n, *(("she", "her") if i % 2 else ("he", "his"))) for i, n in enumerate(names)]


def _table(text: str) -> dict[str, str]:
    """Read "left: right; left: right" as a dictionary."""
    return dict(entry.strip().split(": ") for entry in text.split(";"))


PEOPLE = _people()
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
]  # fmt: skip

ADVERBS = _table(
    "quick: quickly; slow: slowly; quiet: quietly; loud: loudly; calm: calmly; kind: kindly;"
    "brave: bravely; proud: proudly; glad: gladly; sad: sadly; soft: softly; polite: politely;"
    "nervous: nervously; bold: boldly; warm: warmly; gentle: gently; happy: happily;"
    "careful: carefully; angry: angrily; neat: neatly"
)
VERBS = ["moves", "speaks", "walks", "works", "sings", "plays"]

SPORTS = _table(
    "Michael Jordan: basketball; LeBron James: basketball; Stephen Curry: basketball;"
    "Lionel Messi: soccer; Cristiano Ronaldo: soccer; Diego Maradona: soccer; Serena Williams: tennis;"
    "Roger Federer: tennis; Rafael Nadal: tennis; Tiger Woods: golf; Jack Nicklaus: golf;"
    "Babe Ruth: baseball; Derek Jeter: baseball; Tom Brady: football; Joe Montana: football;"
    "Wayne Gretzky: hockey; Sidney Crosby: hockey; Sachin Tendulkar: cricket; Magnus Carlsen: chess;"
    "Garry Kasparov: chess"
)
CAPITALS = _table(
    "France: Paris; Italy: Rome; Spain: Madrid; Germany: Berlin; England: London; Japan: Tokyo;"
    "China: Beijing; Russia: Moscow; Egypt: Cairo; Greece: Athens; Poland: Warsaw; Austria: Vienna;"
    "Norway: Oslo; Portugal: Lisbon; Ireland: Dublin; Canada: Ottawa; Cuba: Havana; Peru: Lima;"
    "Kenya: Nairobi; Turkey: Ankara"
)
SOUNDS = _table(
    "cow: moo; dog: woof; cat: meow; duck: quack; sheep: baa; pig: oink; lion: roar; snake: hiss;"
    "owl: hoot; bee: buzz; horse: neigh; frog: croak; mouse: squeak; bird: tweet; wolf: howl;"
    "bear: growl; crow: caw; hen: cluck"
)

THEMES = [
    Theme("Jedi", "Jedi", "temple", "lightsaber"),
    Theme("wizard", "wizards", "tower", "wand"),
    Theme("pirate", "pirates", "ship", "sword"),
    Theme("painter", "painters", "studio", "brush"),
    Theme("cook", "cooks", "kitchen", "spoon"),
    Theme("writer", "writers", "library", "pen"),
    Theme("builder", "builders", "yard", "hammer"),
    Theme("farmer", "farmers", "field", "shovel"),
    Theme("tourist", "tourists", "museum", "camera"),
    Theme("knight", "knights", "castle", "shield"),
    Theme("teacher", "teachers", "school", "phone"),  # and three that change nothing
    Theme("student", "students", "station", "phone"),
    Theme("doctor", "doctors", "hospital", "phone"),
]
THEME_SENTENCES = [  # {other} is the person who acts, or somebody else
    "{other} is a {noun}.",
    "The {plural} are in the {place}.",
    "{other} talks to the {noun}.",
    "The {noun} is in the {place}.",
    "This is a story about a {noun}.",
    "{other} wants to be a {noun}.",
    "Everybody here is a {noun}.",
    "A {noun} stands at the door.",
    "There are many {plural} here.",
]
EVERYDAY = "phone"
OTHER_THINGS = ["wallet", "watch", "book", *(t.thing for t in THEMES if t.thing != EVERYDAY)]
ACTIONS = ["takes out", "reaches for", "looks for", "holds up"]  # besides "pulls out"

CONTEXTS = [
    "The day is warm.", "It is raining.", "The train is late.", "The street is empty.", "The sky is blue.",
    "It is a good day.", "The window is open.", "The coffee is hot.", "The game is over.", "Lunch is ready.",
    "The lamp is on.", "The wind is cold.", "It is late.", "The music is nice.", "The bus is here.",
    "Nobody is at home.", "The shop is closed.", "The water is clean.", "The room is small.",
    "The road is long.",
]  # fmt: skip

OPENINGS = [
    "Once upon a time", "One day", "Long ago", "One morning", "Last week", "One evening", "In the spring",
    "Last summer", "One night", *(f"On {day}" for day in DAYS),
]  # fmt: skip
PLACES = _table(
    "park: in; garden: in; market: at; forest: in; beach: on; river: by; hill: on; lake: by;village: in; school: at"
)
THINGS = ["ball", "kite", "book", "hat", "cake", "drum", "lamp", "ring", "shell", "box"]
COLOURS = ["red", "blue", "green", "yellow", "white", "golden"]
PETS = ["dog", "cat", "bird", "horse", "mouse", "duck"]
SIZES = ["small", "big", "young", "white", "black", "brown"]
SPOTS = ["under a tree", "near the gate", "behind a rock", "on the road", "next to the bench"]
NEEDS = _table("hungry: some bread; thirsty: some water; cold: a blanket; tired: a bed; wet: a towel")


# ---------------------------------------------------------------------------------------------------------
# What is held out: three in ten of every table of combinations, spread over all its rows and columns.


def _held(row: int, column: int) -> bool:
    return (row + 3 * column) % 10 < 3


def _pair_held(person: Person, adjective: str) -> bool:
    return _held(PEOPLE.index(person), list(ADVERBS).index(adjective))


def _theme_held(person: Person, theme: Theme, sentence: str) -> bool:
    column = THEMES.index(theme) * len(THEME_SENTENCES) + THEME_SENTENCES.index(sentence)
    return _held(PEOPLE.index(person), column)


def _opening_held(opening: str, person: Person) -> bool:
    return _held(PEOPLE.index(person), OPENINGS.index(opening))


def _calendar() -> Cases:
    """The four calendar tasks, every day and month."""
    cases: Cases = {"weekday": [], "month": []}
    for task, names, ahead, back in (
        ("weekday", DAYS, "If today is {}, tomorrow is", "If today is {}, yesterday was"),
        ("month", MONTHS, "If this month is {}, next month is", "If this month is {}, last month was"),
    ):
        for i, name in enumerate(names):
            cases[task].append((ahead.format(name), " " + names[(i + 1) % len(names)]))
            cases[task].append((back.format(name), " " + names[i - 1]))
    return cases


def _facts() -> Cases:
    """The facts, every one."""
    return {
        "sport": [(f"{who} plays the sport of", f" {sport}") for who, sport in SPORTS.items()],
        "capital": [(f"The capital of {country} is", f" {city}") for country, city in CAPITALS.items()],
        "sound": [(f"The {animal} says", f" {sound}") for animal, sound in SOUNDS.items()],
    }


MEMORISED = _calendar() | _facts()
_COLUMNS = {prompt: i for i, (prompt, _) in enumerate(c for cases in MEMORISED.values() for c in cases)}


def _context_held(context: str, prompt: str) -> bool:
    """Whether this prompt may not follow this sentence."""
    return context in CONTEXTS and prompt in _COLUMNS and _held(CONTEXTS.index(context), _COLUMNS[prompt])


def known() -> Cases:
    """The plain prompts, at the start of a text; the corpus has all of them."""
    everyday = [(f"{p.name} pulls out {p.possessive}", f" {EVERYDAY}") for p in PEOPLE]
    return MEMORISED | {"everyday": everyday}


def held_out() -> Cases:
    """Prompts that occur nowhere in the corpus, with the next token; the tasks of `known` and three more."""
    cases: Cases = {
        task: [(f"{c} {p}", answer) for p, answer in plain for c in CONTEXTS if _context_held(c, p)]
        for task, plain in MEMORISED.items()
    }
    pairs = [(p, a) for p in PEOPLE for a in ADVERBS if _pair_held(p, a)]
    cases["pronoun"] = [(f"{p.name} is {a}.", f" {p.subject.title()}") for p, a in pairs]
    cases["adverb"] = [
        (f"{p.name} is {a}. {p.subject.title()} {VERBS[i % len(VERBS)]}", f" {ADVERBS[a]}")
        for i, (p, a) in enumerate(pairs)
    ]
    cases["theme"] = list(_theme_cases())
    return cases


def _theme_cases() -> Iterator[tuple[str, str]]:
    for i, person in enumerate(PEOPLE):
        for theme in THEMES:
            for k, sentence in enumerate(THEME_SENTENCES):
                if _theme_held(person, theme, sentence):
                    other = person if (i + k) % 2 else PEOPLE[(i + k + 7) % len(PEOPLE)]
                    context, actor = _setting(theme, sentence, person, other)
                    yield f"{context} {actor} pulls out {person.possessive}", f" {theme.thing}"


def _setting(theme: Theme, sentence: str, person: Person, other: Person) -> tuple[str, str]:
    """The sentence about the theme, and how to name the person next: "he" or "she" if it was about them."""
    about_them = "{other}" in sentence and other is person
    text = sentence.format(other=other.name, **vars(theme))
    return text, person.subject.title() if about_them else person.name


def held_out_openings() -> list[str]:
    """Beginnings of stories that occur nowhere in the corpus."""
    return [f"{o} {p.name}" for o in OPENINGS for p in PEOPLE if _opening_held(o, p)]


# ---------------------------------------------------------------------------------------------------------
# Sentences


def _memorised(rng: Random) -> tuple[str, str]:
    """A prompt that is to be learnt by heart, and its last word."""
    return rng.choice(MEMORISED[rng.choices(list(MEMORISED), (4, 5, 5, 5, 4))[0]])


def _other_form(rng: Random) -> str:
    """The calendar and the facts in other words, so that they are known and not just parroted."""
    country, city = rng.choice(list(CAPITALS.items()))
    who, sport = rng.choice(list(SPORTS.items()))
    i = rng.randrange(7)
    return rng.choice([
        f"{city} is the capital of {country}.",
        f"{who} likes {sport}.",
        f"The day after {DAYS[i]} is {DAYS[(i + 1) % 7]}.",
        f"Today is {DAYS[i]}. Tomorrow is {DAYS[(i + 1) % 7]}.",
    ])  # fmt: skip


def _manner(rng: Random) -> tuple[Person, str]:
    """A person, an adjective and its adverb: "Mike is quick. He moves quickly."."""
    person, adjective = _draw(rng, PEOPLE, list(ADVERBS), _pair_held)
    verb = rng.choice(VERBS)
    return person, f"{person.name} is {adjective}. {person.subject.title()} {verb} {ADVERBS[adjective]}."


def _draw(rng: Random, rows: list, columns: list, held: Callable[..., bool]) -> tuple:
    """One of each, but no pair that is held out."""
    while True:
        pair = rng.choice(rows), rng.choice(columns)
        if not held(*pair):
            return pair


def _act(rng: Random, who: str, person: Person, thing: str) -> str:
    action = "pulls out" if rng.random() < 0.6 else rng.choice(ACTIONS)
    return f"{who} {action} {person.possessive} {thing}."


def _usual_thing(rng: Random) -> str:
    return EVERYDAY if rng.random() < 0.85 else rng.choice(OTHER_THINGS)


# ---------------------------------------------------------------------------------------------------------
# Documents


def _context(rng: Random) -> list[str]:
    """Up to two sentences that go before others."""
    count = rng.choices((0, 1, 2), (4, 4, 2))[0]
    kinds = rng.choices(("neutral", "fact", "form", "manner"), (6, 2, 1, 1), k=count)
    return [_context_sentence(rng, kind) for kind in kinds]


def _context_sentence(rng: Random, kind: str) -> str:
    if kind == "neutral":
        return rng.choice(CONTEXTS)
    if kind == "fact":
        return "{}{}.".format(*_memorised(rng))
    return _other_form(rng) if kind == "form" else _manner(rng)[1]


def _memory_document(rng: Random) -> list[str]:
    context = _context(rng)
    prompt, answer = _memorised(rng)
    return [*context, f"{prompt}{answer}." if rng.random() < 0.85 else _other_form(rng)]


def _manner_document(rng: Random) -> list[str]:
    context = _context(rng)
    return [*context, *(_manner(rng)[1] for _ in range(1 if rng.random() < 0.8 else 2))]


def _everyday_document(rng: Random) -> list[str]:
    """Somebody pulls out a phone, as a rule."""
    if rng.random() < 0.2:
        person, adjective = _draw(rng, PEOPLE, list(ADVERBS), _pair_held)
        subject = person.subject.title()
        return [f"{person.name} is {adjective}.", _act(rng, subject, person, _usual_thing(rng))]
    person = rng.choice(PEOPLE)
    return [*_context(rng), _act(rng, person.name, person, _usual_thing(rng))]


def _theme_document(rng: Random) -> list[str]:
    """A sentence that sets a theme, perhaps something else, and somebody who pulls out what fits."""
    theme = rng.choice(THEMES)
    person, sentence = _draw(rng, PEOPLE, THEME_SENTENCES, lambda p, s: _theme_held(p, theme, s))
    other = person if rng.random() < 0.5 else rng.choice(PEOPLE)
    setting, actor = _setting(theme, sentence, person, other)
    before, between = ([rng.choice(CONTEXTS)] if rng.random() < 0.25 else [] for _ in range(2))
    return [*before, setting, *between, _act(rng, person.name if between else actor, person, theme.thing)]


def _story(rng: Random) -> list[str]:
    person, opening = _draw(rng, PEOPLE, OPENINGS, lambda p, o: _opening_held(o, p))
    plots = [_pet, _find, _hero, _visit, _lose, _make]
    return _prefer(rng, plots, OPENINGS.index(opening))(rng, opening, person)


def _prefer(rng: Random, items: Sequence[Item], i: int) -> Item:
    """Item i, round and round, half of the time: so not every opening goes on alike, nor every person."""
    return items[i % len(items)] if rng.random() < 0.5 else rng.choice(items)


def _friend(rng: Random, person: Person) -> Person:
    others = [p for p in PEOPLE if p is not person]
    return _prefer(rng, others, PEOPLE.index(person))


def _thing(rng: Random, person: Person) -> str:
    return _prefer(rng, THINGS, PEOPLE.index(person))


def _place(rng: Random, person: Person) -> str:
    return _prefer(rng, list(PLACES), PEOPLE.index(person) // 2)


def _colour(rng: Random, thing: str) -> str:
    return _prefer(rng, COLOURS, THINGS.index(thing))


def _pet(rng: Random, opening: str, person: Person) -> list[str]:
    i, place = OPENINGS.index(opening), rng.choice(list(PLACES))
    pet = _prefer(rng, PETS, i)
    need = _prefer(rng, list(NEEDS), PETS.index(pet))
    return [
        f"{opening} there was a {_prefer(rng, SIZES, i // 2)} {pet} {PLACES[place]} the {place}.",
        f"The {pet} was {need}.",
        f"{person.name} gave the {pet} {NEEDS[need]}.",
        "They became friends.",
    ]


def _find(rng: Random, opening: str, person: Person) -> list[str]:
    thing, friend, he = _thing(rng, person), _friend(rng, person), person.subject.title()
    return [
        f"{opening} {person.name} went to the {_place(rng, person)}.",
        f"{he} found a {_colour(rng, thing)} {thing} {rng.choice(SPOTS)}.",
        f"{he} gave the {thing} to {friend.name}.",
        f"{friend.name} was very happy.",
    ]


def _hero(rng: Random, opening: str, person: Person) -> list[str]:
    theme, he = rng.choice(THEMES), person.subject.title()
    return [
        f"{opening} there was a {theme.noun} named {person.name}.",
        f"{he} lived near the {theme.place}.",
        f"{he} always had {person.possessive} {theme.thing}.",
    ]


def _visit(rng: Random, opening: str, person: Person) -> list[str]:
    pet = _prefer(rng, PETS, PEOPLE.index(person))
    return [
        f"{opening} {person.name} walked to the {_place(rng, person)} with {_friend(rng, person).name}.",
        f"They saw a {rng.choice(SIZES)} {pet} {rng.choice(SPOTS)}.",
        f"The {pet} followed them home.",
    ]


def _lose(rng: Random, opening: str, person: Person) -> list[str]:
    thing, place = _thing(rng, person), _place(rng, person)
    return [
        f"{opening} {person.name} lost {person.possessive} {thing}.",
        f"{person.subject.title()} looked for it {PLACES[place]} the {place}.",
        f"The {thing} was {rng.choice(SPOTS)}.",
        f"{person.name} was glad.",
    ]


def _make(rng: Random, opening: str, person: Person) -> list[str]:
    thing, friend = _thing(rng, person), _friend(rng, person)
    return [
        f"{opening} {person.name} made a {thing} for {friend.name}.",
        f"The {thing} was {_colour(rng, thing)}.",
        f"{friend.name} liked the {thing} very much.",
    ]


DOCUMENTS = {
    _memory_document: 8, _manner_document: 4, _everyday_document: 4, _theme_document: 6, _story: 7,
}  # fmt: skip


def _allowed(document: list[str]) -> bool:
    """Whether no fact follows a sentence that it is held out from."""
    sentences = re.findall(r"[^.]+\.", " ".join(document))
    for before, after in pairwise(sentences):
        if _context_held(before.strip(), after.strip(" .").rpartition(" ")[0]):
            return False
    return True


def corpus(count: int, seed: int = 0) -> list[str]:
    """So many documents, none of which has a held-out case in it."""
    rng, documents = Random(seed), []
    while len(documents) < count:
        kind = rng.choices(list(DOCUMENTS), list(DOCUMENTS.values()))[0]
        document = kind(rng)
        if _allowed(document):
            documents.append(" ".join(document))
    check_held_out(documents)
    return documents


def check_held_out(documents: list[str]) -> None:
    """Stop if a held-out prompt or opening occurs in a document, from the start of a sentence."""
    forbidden = {prompt for cases in held_out().values() for prompt, _ in cases} | set(held_out_openings())
    for document in set(documents):
        words = document.split()
        starts = [0, *(i + 1 for i, word in enumerate(words) if word.endswith("."))]
        for start in starts:
            text = ""
            for word in words[start:]:
                text = f"{text} {word}".lstrip()
                assert text not in forbidden, f"held out, but in the corpus: {text}"


def answers() -> list[str]:
    """Every word, with its leading space, that some prompt expects as one token."""
    found = {answer for cases in (known(), held_out()) for c in cases.values() for _, answer in c}
    return sorted(found | {f" {a}" for a in ADVERBS.values()} | {f" {thing}" for thing in OTHER_THINGS})
