"""English nouns for things that a photo shows, with their plurals and synonyms: for labels and to check captions."""

from functools import cache

from showtell.text.words import DOGS, PEOPLE, plurals

# Each entry is "name" or "name=synonym=...". Plurals are added. Words that are more often a verb or an adjective in captions,
# such as "stand" and "orange", are left out.
_THINGS = """
man woman boy girl child=kid baby=infant=toddler cat=kitten horse=pony cow=cattle=bull=calf sheep=lamb goat pig bear
elephant giraffe zebra monkey deer rabbit bird duck goose seagull pigeon chicken parrot owl fish turtle lion tiger animal
shark insect=bee=butterfly car=sedan=jeep taxi=cab truck=pickup van bus train=locomotive motorcycle=motorbike=moped=scooter
bicycle=bike airplane=plane=jet helicopter boat=canoe=kayak=raft=sailboat=ship wagon=carriage=cart sled wheelchair stroller
tractor trailer vehicle skateboard surfboard snowboard ski frisbee=disc kite ball football baseball bat racket=racquet goal
hoop trampoline unicycle helmet swing slide playground skatepark ramp parachute tent hammock street=road=highway
sidewalk=pavement=curb parking intersection=crosswalk bridge tunnel track=railroad station airport runway
building=skyscraper house=home=cottage church tower castle barn stadium=arena store=shop=market restaurant=cafe hotel
school=classroom zoo farm city=town court field=meadow=pasture park yard=backyard=lawn garden forest=woods=jungle
beach=shore=coast desert mountain=mountainside hill=hillside slope cliff rock=boulder cave valley canyon ocean=sea lake=pond
river=creek=stream waterfall pool fountain island harbor=dock=pier wave water ice snow sand mud dirt grass sky cloud
sun=sunset=sunrise moon rainbow smoke fire rain tree bush=shrub plant flower=rose=tulip leaf branch log palm fence wall gate
door=doorway window roof stair=staircase=step balcony porch=patio ladder rail=railing pole post sign=signpost
light=streetlight hydrant meter bench statue=sculpture clock=watch flag banner billboard graffiti mural trash=garbage
kitchen bathroom=restroom=washroom bedroom room office lobby=hallway garage closet aisle table desk counter=countertop
chair=stool=armchair couch=sofa=loveseat bed=bunk crib shelf=bookshelf cabinet=cupboard drawer=dresser lamp=lantern candle
mirror curtain=drapes blanket=quilt pillow=cushion rug=carpet mat towel floor ceiling fireplace vase picture=painting
toilet=urinal sink tub=bathtub shower stove=oven microwave refrigerator=fridge=freezer toaster blender dishwasher faucet
television=tv computer=laptop=desktop keyboard mouse=mice monitor=screen phone=cellphone=telephone=smartphone camera remote
controller printer radio=stereo speaker microphone guitar piano drum violin=cello trumpet instrument book=magazine newspaper
paper pen=pencil plate=platter dish bowl cup=mug glass bottle=jar can pot pan=skillet fork knife=knives spoon tray
basket=bin box=crate=carton bag=sack backpack purse=handbag suitcase=luggage=briefcase umbrella=parasol toy doll teddy
balloon scissors=shears toothbrush bucket pizza sandwich=sub=panini burger=hamburger=cheeseburger hotdog fry=fries
bread=bun=baguette=toast bagel cake=cupcake donut=doughnut pie pastry=muffin cookie dessert chocolate soup salad
pasta=spaghetti=noodle rice meat=steak=beef=ham chicken=turkey egg cheese fruit banana apple lemon=lime
strawberry=berry=raspberry grape peach=pear pineapple melon=watermelon vegetable tomato potato carrot broccoli cauliflower
onion pepper mushroom corn cabbage=lettuce sauce coffee=espresso=latte tea beer wine juice drink=beverage food=meal=snack
shirt=t-shirt=tshirt jacket=coat dress=gown skirt suit tie uniform=jersey pants=jeans=trousers shorts hat=cap=beanie scarf
glove shoe=boot=sneaker sock glasses=sunglasses=goggles bikini=swimsuit wetsuit costume mask wig necklace=bracelet collar
leash harness vest apron beard mustache hair face hand foot=feet leg arm tongue crowd=audience=spectator team=lineup couple
player skier surfer skateboarder snowboarder cyclist=bicyclist=biker climber hiker runner swimmer soldier
officer=policeman=cop firefighter=fireman chef=cook bride groom machine tire=wheel engine rope chain net cage hay stick bone
wood brick tile
"""


@cache
def groups() -> dict[str, frozenset[str]]:
    """Words that name each thing, by its plain name: `person` and `dog` first, then those above."""
    found: dict[str, frozenset[str]] = {"person": PEOPLE.words, "dog": DOGS.words}
    for entry in _THINGS.split():
        name, *others = entry.split("=")
        words = {name, *others}
        words |= {form for word in words for form in plurals(word)}
        found[name] = found.get(name, frozenset()) | words
    return found
