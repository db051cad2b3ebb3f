"""METEOR and SPICE, computed by the authors' Java programs in the package pycocoevalcap (the extra `coco`).

METEOR: Denkowski and Lavie 2014, "Meteor Universal: Language Specific Translation Evaluation for Any Target Language",
version 1.5, English, with the settings of coco-caption (`-norm`, ranking parameters). SPICE: Anderson, Fernando, Johnson and
Gould 2016, "SPICE: Semantic Propositional Image Caption Evaluation", version 1.0.

The programs run directly and not through pycocoevalcap's wrappers, which fail where the locale has decimal commas or the
installation path has a space. METEOR's aligner returns counts; the score is computed from them here by the published formula,
so that the same sums serve corpus scores and bootstrap samples.
"""

import importlib.util
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from showtell.arrays import FloatArray
from showtell.errors import MissingExtraError, MissingToolError
from showtell.metrics.result import MetricResult, Tokens

# Numbers with decimal points, and text as UTF-8, whatever the locale.
_LOCALE = ("-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8")
# METEOR 1.5's parameters for English: penalties and balance, then the weights of exact, stem, synonym and paraphrase matches.
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_MATCH_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
_MODELS = "https://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"  # 385 MB


def meteor(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> dict[str, MetricResult]:
    """METEOR of N candidates; the corpus score pools the counts of all images.

    Raises MissingExtraError without pycocoevalcap, MissingToolError without Java.
    """
    folder = package_folder("METEOR") / "meteor"
    # By default the program opens its paraphrases by a URL, which fails where the path has a space.
    options = ("-", "-", "-stdio", "-l", "en", "-norm", "-a", str(folder / "data" / "paraphrase-en.gz"))
    command = [java_path("METEOR"), "-Xmx2G", *_LOCALE, "-jar", str(folder / "meteor-1.5.jar"), *options]
    lines = (
        " ||| ".join(["SCORE", *(_meteor_line(tokens) for tokens in refs), _meteor_line(candidate)])
        for candidate, refs in zip(candidates, references, strict=True)
    )
    answer = _run(command, "METEOR", "\n".join(lines) + "\n")
    totals = np.array([[float(number) for number in line.split()] for line in answer.splitlines()])
    unbroken = (totals[:, 20] == 1) & (totals[:, 21] == totals[:, 0]) & (totals[:, 22] == totals[:, 1])
    totals[unbroken, 20] = 0  # a caption matched completely in one chunk is not fragmented, in the sum either
    return {"METEOR": MetricResult(_meteor_scores(totals), totals, _meteor_scores)}


def spice(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> dict[str, MetricResult]:
    """SPICE (F-score of scene-graph tuples) of N candidates; the corpus score is the mean.

    Raises MissingExtraError without pycocoevalcap, MissingToolError without Java or the Stanford models.
    """
    folder = package_folder("SPICE") / "spice"
    java = java_path("SPICE")
    for jar in ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"):
        if not (folder / "lib" / jar).is_file():
            raise MissingToolError(
                f"SPICE needs {jar}, which pycocoevalcap leaves out: download {_MODELS} (385 MB) and copy {jar} out of it into "
                f"{folder / 'lib'}"
            )
    entries = [
        {"image_id": index, "test": " ".join(candidate), "refs": [" ".join(tokens) for tokens in refs]}
        for index, (candidate, refs) in enumerate(zip(candidates, references, strict=True))
    ]
    with tempfile.TemporaryDirectory() as work:
        source, output = Path(work, "captions.json"), Path(work, "scores.json")
        source.write_text(json.dumps(entries), encoding="utf-8")
        jar_file = folder / "spice-1.0.jar"
        _run([java, "-Xmx8G", *_LOCALE, "-jar", str(jar_file), str(source), "-out", str(output), "-silent"], "SPICE")
        results = json.loads(output.read_text(encoding="utf-8"))
    scores = {entry["image_id"]: float(entry["scores"]["All"]["f"]) for entry in results}
    return {"SPICE": MetricResult.mean_of([scores[index] for index in range(len(entries))])}


def _meteor_scores(counts: FloatArray) -> FloatArray:
    """METEOR (...) of the aligner's counts (..., 23).

    Words and function words of candidate and reference (4); matched content and function words of both, by kind of match
    (4 x 4); chunks; matched words of both (2).
    """
    words, reference_words, functions, reference_functions = np.moveaxis(counts[..., :4], -1, 0)
    matches = counts[..., 4:20].reshape(*counts.shape[:-1], 4, 4)  # (..., kind of match, the next line's four)
    content, reference_content, function, reference_function = np.moveaxis(_MATCH_WEIGHTS @ matches, -1, 0)
    chunks, matched, reference_matched = np.moveaxis(counts[..., 20:], -1, 0)

    def share(content: FloatArray, function: FloatArray, words: FloatArray, functions: FloatArray) -> FloatArray:
        whole = _DELTA * (words - functions) + (1 - _DELTA) * functions
        return np.divide(_DELTA * content + (1 - _DELTA) * function, whole, out=np.zeros_like(whole), where=whole > 0)

    precision = share(content, function, words, functions)
    recall = share(reference_content, reference_function, reference_words, reference_functions)
    balance = _ALPHA * precision + (1 - _ALPHA) * recall
    mean = np.divide(precision * recall, balance, out=np.zeros_like(balance), where=balance > 0)
    both = (matched + reference_matched) / 2
    fragments = np.divide(chunks, both, out=np.zeros_like(both), where=both > 0)
    return np.asarray(mean * (1 - _GAMMA * fragments**_BETA))


def _meteor_line(tokens: Tokens) -> str:
    return " ".join(tokens).replace("|||", "")


def package_folder(metric: str) -> Path:
    """The folder of pycocoevalcap, which is not imported, since that needs pycocotools."""
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("coco", metric)
    return Path(spec.submodule_search_locations[0])


def java_path(metric: str) -> str:
    java = shutil.which("java")
    if java is None:
        raise MissingToolError(
            f"{metric} needs Java 8 or later and there is no `java` on the PATH: install one "
            "(apt install default-jre-headless, brew install openjdk, winget install EclipseAdoptium.Temurin.21.JRE)"
        )
    return java


def _run(command: Sequence[str], metric: str, text: str = "") -> str:
    """The standard output of a Java program with `text` as its input."""
    done = subprocess.run(command, input=text, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode != 0 or "Exception in thread" in done.stderr:
        raise MissingToolError(
            f"{metric}'s Java program failed: {done.stderr.strip()[-500:]}; try `{' '.join(command[:2])} -version`"
        )
    return done.stdout
