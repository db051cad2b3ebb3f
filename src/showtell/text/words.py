"""Lists of English words: names of people, names of dogs, and words that a caption may repeat.

Words are tokens of `text.tokenize`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product


@dataclass(frozen=True)
class Named:
    """The words that name a kind of thing in captions.

    `words` name it. `hints` imply it, or may mean something else. In the pairs of `other`, a word names something else, as in
    hot dog.
    """

    words: frozenset[str]
    hints: frozenset[str]
    other: frozenset[tuple[str, str]]

    def falsely(self, caption: Sequence[str], references: Iterable[Sequence[str]]) -> bool:
        """Whether a tokenized caption names the thing and no reference of the photo names or implies it."""
        return self._says(caption, self.words) and not any(self._says(tokens, self.words | self.hints) for tokens in references)

    def _says(self, tokens: Sequence[str], words: frozenset[str]) -> bool:
        other = [pair in self.other for pair in pairwise(["", *tokens, ""])]
        return any(word in words and not other[place] and not other[place + 1] for place, word in enumerate(tokens))


def _words(*lists: str, plurals: str = "") -> frozenset[str]:
    """The words of `lists`, and those of `plurals` with and without an s."""
    both = plurals.split()
    return frozenset(" ".join(lists).split()) | frozenset(both) | {f"{word}s" for word in both}


def _pairs(first: str, second: str) -> frozenset[tuple[str, str]]:
    return frozenset(product(first.split(), second.split()))


_YOUNG_OR_OLD = "baby babies infant infants adult adults mother mothers father fathers parent parents family"
_TOGETHER = "audience band couple couples crew crowd crowds family families squad team teams"
_ANIMALS = (
    "animal animals bear bears bird birds buffalo bull bulls calf cat cats cow cows deer dog dogs duck ducks elephant "
    "elephants giraffe giraffes goat goats goose horse horses kitten kittens lamb lambs monkey monkeys pig pigs puppy sheep "
    "zebra zebras"
)

PEOPLE = Named(
    words=_words(
        "man men woman women people children baby babies lady ladies gentleman gentlemen youth audience crowd crowds policeman",
        "policemen fireman firemen fisherman fishermen businessman businessmen cameraman cowgirl farmer passengers pedestrians",
        "tourists",
        plurals="boy girl person kid guy adult child toddler infant teen teenager youngster human dude lad athlete backpacker "
        "ballplayer batter bicyclist biker boarder bride catcher cheerleader chef climber clown cowboy cyclist dancer "
        "diver driver drummer firefighter footballer golfer goalie groom guitarist gymnast hiker jockey jogger juggler "
        "kayaker lifeguard motorcyclist musician officer onlooker performer photographer player racer referee rider "
        "rower runner sailor shopper singer skateboarder skater skier snowboarder soldier spectator sprinter student "
        "surfer swimmer teacher umpire vendor wakeboarder waiter windsurfer worker wrestler",
    ),
    hints=_words(
        "he she him his her hers himself herself who whose someone somebody anyone anybody everyone everybody asians boxers",
        "brunette diners elderly female females finger fingers hand homeless male males models pitchers redhead selfie thumb",
        "band bands buddies choir couple couples crew families family groomsmen newlyweds orchestra police princess squad",
        "staff team teams troops wife wives baseman batsman craftsman crewmen horsemen lumberjack policewoman repairman",
        "salesman servicemen spiderman sportsman stuntman workman workmen",
        plurals="acrobat actor actress adventurer aide archer artist attendant baker ballerina barber bartender bather "
        "beachgoer bicycler bowler bridesmaid brother builder bystander carpenter cashier champion chap classmate "
        "client colleague commuters competitor conductor contestant cook cop cricketer customer dad daughter defender "
        "dentist doctor elder employee engineer entertainer equestrian explorer fellow fencer fielder figure fisher "
        "friend gamer goalkeeper goaltender grandfather grandma grandmother grandpa guard guest handler herder hitter "
        "hunter husband individual infielder instructor janitor judge jumper kicker kiteboarder kitesurfer laborer "
        "leader lineman lover magician mechanic member merchant mom monk mother father mountaineer musher neighbor nun "
        "nurse observer operator opponent outfielder owner paddler painter pal parachutist parasailer parent "
        "participant partner passerby pastor patient patron pedestrian pianist picnicker pilot pirate plumber "
        "politician president priest protester protestor quarterback rancher ranger resident rollerblader rollerskater "
        "schoolchildren scout seller senior server shepherd sister skiier skydiver sledder snowmobiler son sunbather "
        "supporter surfboarder technician tourist traveler traveller trekker trooper viewer villager visitor volunteer "
        "waitress walker watcher waterskier winner",
    ),
    other=_pairs(_YOUNG_OR_OLD, _ANIMALS)
    | _pairs(_TOGETHER, "of")  # of cows, say; those of people name them too
    | _pairs("cd dvd media mp3 music record video", "player players")
    | _pairs("family", "car cars photo photos picture pictures room rooms")
    | _pairs("hand", "bag bags dryer rail sanitizer soap towel towels")
    | _pairs("police", "boat car cars motorcycle motorcycles van")
    | _pairs("rubber", "band bands"),
)

DOGS = Named(
    words=_words("puppies", plurals="dog doggie doggy puppy"),
    hints=_words(
        "dane huskies husky maltese yorkie",
        plurals="akita basset beagle boxer bulldog canine chihuahua collie corgi dachshund dalmatian dalmation doberman "
        "greyhound hound lab labrador malamute mastiff mutt pinscher pitbull pomeranian poodle pug pup retriever "
        "rottweiler schnauzer setter sheepdog shepherd spaniel terrier weimaraner whippet",
    ),
    other=_pairs("chili corn hot prairie", "dog dogs") | _pairs("dog dogs", "bed beds bowl bowls food house houses"),
)

# Function words, numbers, and the words of "next to", "in front of" and "one after another".
MAY_REPEAT = _words(
    "a an the this that these those some any no all both each every many several few lots lot more most other another others",
    "one two three four five six seven eight nine ten and or but nor as while whilst when where which who whose whom what than",
    "then so if because with without not n't i you he she it we they me him her us them my your his its our their himself",
    "herself itself themselves 's ' there here about above across after against ahead along alongside among amongst around at",
    "away back before behind below beneath beside between beyond by down during for from in inside into near next of off on",
    "onto out outside over past through throughout to together toward towards under underneath until up upon via within am is",
    "are was were be been being do does did has have had having can could will would may might must should also just only too",
    "very front middle side sides top",
)

_IRREGULAR = {
    **{"child": "children", "person": "people", "foot": "feet", "tooth": "teeth", "goose": "geese", "mouse": "mice"},
    **{"ox": "oxen", "die": "dice"},
}


def plurals(word: str) -> tuple[str, ...]:
    """What may be the plural of an English noun, as dogs, buses, ladies, wolves and firemen; function words are left out."""
    forms = [word + "s"]
    if word.endswith(("s", "x", "z", "ch", "sh", "o")):
        forms.append(word + "es")
    for ending, other in (("y", "ies"), ("fe", "ves"), ("f", "ves"), ("man", "men")):
        if word.endswith(ending):
            forms.append(word.removesuffix(ending) + other)
    for singular, plural in _IRREGULAR.items():  # also of grandchild
        if word.endswith(singular):
            forms.append(word.removesuffix(singular) + plural)
    return tuple(form for form in forms if form not in MAY_REPEAT)


def takes_an(word: str) -> bool:
    """Whether "an" rather than "a" comes before an English noun or adjective; no function word does."""
    spoken_with_a_consonant = ("eu", "once", "one", "uk", "uni", "usa", "use", "usu", "ut")
    return word.startswith(tuple("aeiou")) and not word.startswith(spoken_with_a_consonant) and word not in MAY_REPEAT


# Words that people use for two things in one photo: "a black dog and a brown dog".
OF_SEVERAL = _words(
    "man woman boy girl dog dogs person child player white black brown red blue green tan young small little large",
)
