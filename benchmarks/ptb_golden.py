"""Writes what the Stanford tokenizer answers, as golden data for tests that then need no Java.

    python benchmarks/ptb_golden.py                     # answers again for the lines of tests/text/ptb_golden.jsonl
    python benchmarks/ptb_golden.py --lines new.txt     # for the lines of a text file
    python benchmarks/ptb_golden.py --flickr8k FOLDER   # digests for Flickr8k.token.txt

Needs Java and `pip install pycocoevalcap`, whose jar and punctuation list it uses.
"""

import argparse
import hashlib
import importlib.util
import json
import subprocess
import tempfile
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "tests" / "text" / "ptb_golden.jsonl"
DIGESTS = GOLDEN.with_name("ptb_flickr8k.bin")
DIGEST_SIZE = 4  # bytes a line: a wrong line passes once in four billion


def stanford_tokens(lines: list[str]) -> list[list[str]]:
    """The tokens of each line, as pycocoevalcap's PTBTokenizer gives them."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, STANFORD_CORENLP_3_4_1_JAR

    spec = importlib.util.find_spec("pycocoevalcap")
    jar = Path(spec.submodule_search_locations[0], "tokenizer", STANFORD_CORENLP_3_4_1_JAR)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as file:
        file.write("\n".join(lines))
        file.flush()
        command = ["java", "-cp", jar, "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase", file.name]
        answer = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\n")
    return [[token for token in line.split(" ") if token and token not in PUNCTUATIONS] for line in answer[: len(lines)]]


def digest(tokens: list[str]) -> bytes:
    return hashlib.blake2b("\n".join(tokens).encode(), digest_size=DIGEST_SIZE).digest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lines", type=Path)
    parser.add_argument("--flickr8k", type=Path)
    options = parser.parse_args()
    if options.flickr8k:
        path = next(options.flickr8k.rglob("Flickr8k.token.txt"))
        captions = [line.split("\t")[1] for line in path.read_text(encoding="utf-8").splitlines()]
        DIGESTS.write_bytes(b"".join(map(digest, stanford_tokens(captions))))
        return
    source = (options.lines or GOLDEN).read_text(encoding="utf-8").strip("\n").split("\n")
    lines = source if options.lines else [json.loads(line)[0] for line in source]
    # The tokenizer looks into the next line where one ends in "x." or "no."; a lower-case word in between keeps lines apart.
    answers = stanford_tokens([piece for line in lines for piece in (line, "end")])[::2]
    pairs = (json.dumps([line, tokens], ensure_ascii=False) for line, tokens in zip(lines, answers, strict=True))
    GOLDEN.write_text("\n".join(pairs) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
