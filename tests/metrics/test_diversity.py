"""What captions say twice, and the people and dogs that nobody saw."""

import pytest

from showtell.metrics import score
from showtell.metrics.diversity import repetition
from showtell.text import tokenize
from showtell.text.words import DOGS, MAY_REPEAT, PEOPLE


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("a white and white cat", (True, False, True)),
        ("a man in a hat and a hat", (False, False, True)),
        ("a man climbs up and up", (True, False, False)),
        ("a computer computer", (False, True, True)),
        ("a dog in the the grass", (False, True, False)),
        ("a cat sitting on top of a white cat", (False, False, True)),
        ("a small dog with a small ball", (False, False, True)),
        ("one dog is next to another on one side and next to a cat on the other side", (False, False, False)),
        ("two men and two women sit in front of the house in front of the lake", (False, False, False)),
        ("and", (False, False, False)),
        ("white and", (False, False, False)),
        ("", (False, False, False)),
    ],
)
def test_what_a_caption_says_twice(caption, found):
    assert repetition(tokenize(caption)) == found


def test_shares_of_captions_that_say_a_thing_twice():
    captions = {
        "a.jpg": "a white and white cat",
        "b.jpg": "a tree tree",
        "c.jpg": "a dog and a dog",
        "d.jpg": "over and over",
        "e.jpg": "a dog and a cat",
    }
    found = score(captions, {name: ["a dog"] for name in captions}).diversity
    assert (found.around_and, found.doubled_word, found.repeated_word, found.repetition) == (2 / 5, 1 / 5, 3 / 5, 4 / 5)


@pytest.mark.parametrize(
    ("kind", "caption", "references", "false"),
    [
        (PEOPLE, "a man sits at a table", ["A bowl of fruit.", "Some apples."], True),
        (PEOPLE, "a man sits at a table", ["A bowl of fruit.", "A woman with apples."], False),
        (PEOPLE, "a group of people", ["Kids at play."], False),
        (PEOPLE, "a skateboarder on a ramp", ["A ramp in a park."], True),
        (PEOPLE, "surfers in the sea", ["Someone surfs."], False),
        (PEOPLE, "a boy plays", ["Holding a ball in his lap."], False),
        (PEOPLE, "a boy plays", ["The priest speaks to his parish."], False),
        (PEOPLE, "a bowl of fruit", ["A bowl of fruit."], False),
        (PEOPLE, "a baby elephant and an adult elephant", ["Two elephants."], False),
        (PEOPLE, "a baby on a bed", ["A cat on a bed."], True),
        (PEOPLE, "a crowd", ["Chairs."], True),
        (PEOPLE, "a crowd of birds", ["Birds."], False),
        (PEOPLE, "a man with cows", ["A couple of cows.", "A family of cows."], True),
        (PEOPLE, "a man with a cow", ["A couple with a cow."], False),
        (PEOPLE, "a man at a desk", ["A CD player on a desk."], True),
        (DOGS, "a dog runs", ["A cat runs.", "A cat."], True),
        (DOGS, "a dog runs", ["A cat runs.", "A poodle."], False),
        (DOGS, "two puppies", ["A dog's nose."], False),
        (DOGS, "a hot dog on a plate", ["Food on a plate."], False),
        (DOGS, "a dog on a plate", ["A hot dog on a plate.", "Hot dogs and chips."], True),
        (DOGS, "a dog on a plate", ["A dog with a hot dog on a plate."], False),
        (DOGS, "a man", ["A dog."], False),
    ],
)
def test_who_is_named_where_no_reference_does(kind, caption, references, false):
    assert kind.falsely(tokenize(caption), [tokenize(text) for text in references]) is false


def test_shares_of_captions_that_name_people_and_dogs_that_are_not_there():
    captions = {"a.jpg": "a man and a dog", "b.jpg": "a dog", "c.jpg": "a cat", "d.jpg": "a woman"}
    references = {"a.jpg": ["a cat"], "b.jpg": ["a puppy"], "c.jpg": ["a man"], "d.jpg": ["a cat", "a bed"]}
    found = score(captions, references).diversity
    assert (found.false_people, found.false_dogs) == (2 / 4, 1 / 4)


def test_words_that_name_something_are_not_those_that_may_repeat():
    assert not PEOPLE.words & DOGS.words
    assert not (PEOPLE.words | DOGS.words) & MAY_REPEAT
