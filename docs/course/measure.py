"""Measures what the pages on evaluation and on people quote, on a data set with several captions a photo.

    python docs/course/measure.py FLICKR8K --style flickr8k

Prints how well one person's caption scores against the others', and how often captions name men and women where all of a
photo's references that name anyone name only women, or only men.
"""

import argparse
from collections import Counter
from pathlib import Path

import showtell
from showtell.data import read
from showtell.evaluation.run import caption_split
from showtell.metrics import score
from showtell.text import tokenize

WOMEN = {"woman", "women", "girl", "girls", "lady", "ladies"}
MEN = {"man", "men", "boy", "boys", "guy", "guys", "gentleman", "gentlemen"}


def named(caption: str) -> str:
    """Whom a caption names: women, men, both or neither."""
    words = set(tokenize(caption))
    return {(True, True): "both", (True, False): "women", (False, True): "men"}.get(
        (bool(words & WOMEN), bool(words & MEN)), "neither"
    )


def agreed(captions: tuple[str, ...]) -> str:
    """Whom at least three of a photo's captions name, without one that names the other; else nobody."""
    counts = Counter(map(named, captions))
    for one, other in (("women", "men"), ("men", "women")):
        if counts[one] >= min(3, len(captions)) and not counts[other] and not counts["both"]:
            return one
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--style", default="")
    parser.add_argument("--split", default="dev")
    arguments = parser.parse_args()
    dataset = read(arguments.data)
    samples = [sample for sample in dataset.split(arguments.split) if len(sample.captions) > 1]
    captioner = showtell.load()
    run = caption_split(captioner, dataset, arguments.split, captioner.options(style=arguments.style))
    samples = [sample for sample in samples if sample.image in run.candidates]
    captions = {sample.image: run.candidates[sample.image] for sample in samples}

    others = {sample.image: sample.captions[1:] for sample in samples}
    print(f"{len(samples)} photos; each candidate against the captions but the first")
    for name, candidates in (("first person", {sample.image: sample.captions[0] for sample in samples}), ("model", captions)):
        found = score(candidates, others).corpus
        print(f"{name:12}  BLEU-4 {found['BLEU-4']:.1f}  ROUGE-L {found['ROUGE-L']:.1f}  CIDEr {found['CIDEr']:.1f}")
    print("references name   model names: women, men, both, neither")
    for who in ("women", "men"):
        counts = Counter(named(captions[sample.image]) for sample in samples if agreed(sample.captions) == who)
        print(f"{who:16}  {[counts[key] for key in ('women', 'men', 'both', 'neither')]} of {sum(counts.values())}")


if __name__ == "__main__":
    main()
