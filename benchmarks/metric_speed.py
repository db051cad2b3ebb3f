"""How long 1,000 candidates with five references each take: tokenizing, BLEU, ROUGE-L and CIDEr, as whole processes.

    python benchmarks/metric_speed.py prepare FLICKR8K_FOLDER captions.json   # test photos; no photo is read
    python benchmarks/metric_speed.py pair captions.json                      # both below in turn, five times

    python benchmarks/metric_speed.py showtell captions.json
    python benchmarks/metric_speed.py pycocoevalcap captions.json             # needs Java and pycocoevalcap

Candidates are one more caption of each photo: the first reference, cut to ten words.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path


def prepare(folder: Path, path: Path) -> None:
    from showtell.evaluation import read_references

    references = read_references(next(folder.rglob("Flickr8k.token.txt"))).captions
    names = next(folder.rglob("Flickr_8k.testImages.txt")).read_text(encoding="utf-8").split()
    captions = [{"candidate": " ".join(references[name][0].split()[:10]), "references": references[name]} for name in names]
    path.write_text(json.dumps(captions), encoding="utf-8")


def showtell(path: Path) -> dict[str, float]:
    from showtell.metrics import score

    captions = json.loads(path.read_text(encoding="utf-8"))
    return dict(
        score(
            {str(index): entry["candidate"] for index, entry in enumerate(captions)},
            {str(index): entry["references"] for index, entry in enumerate(captions)},
        ).corpus
    )


def pycocoevalcap(path: Path) -> dict[str, float]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    captions = json.loads(path.read_text(encoding="utf-8"))
    tokenizer = PTBTokenizer()
    references = tokenizer.tokenize(
        {index: [{"caption": text} for text in entry["references"]] for index, entry in enumerate(captions)}
    )
    candidates = tokenizer.tokenize({index: [{"caption": entry["candidate"]}] for index, entry in enumerate(captions)})
    scores = {
        f"BLEU-{n + 1}": 100 * value for n, value in enumerate(Bleu().compute_score(references, candidates, verbose=0)[0])
    }
    scores["ROUGE-L"] = 100 * Rouge().compute_score(references, candidates)[0]
    scores["CIDEr"] = 100 * Cider().compute_score(references, candidates)[0]
    return scores


def pair(path: Path, runs: int = 5) -> None:
    """Runs the two in turn, so that both see the machine at its fast and slow moments; the first pair warms up."""
    seconds: dict[str, list[float]] = {"showtell": [], "pycocoevalcap": []}
    for _ in range(runs + 1):
        for name, times in seconds.items():
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, __file__, name, path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True
            )
            times.append(time.perf_counter() - start)
    for name, times in seconds.items():
        print(f"{name:14} median {statistics.median(times[1:]):.2f} s of {', '.join(f'{value:.2f}' for value in times[1:])}")
    ratios = [theirs / ours for ours, theirs in zip(*seconds.values(), strict=True)][1:]
    print(f"times faster   median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    task, *paths = sys.argv[1:] or ["help"]
    if task == "prepare":
        prepare(*map(Path, paths))
    elif task == "pair":
        pair(Path(paths[0]))
    elif task in ("showtell", "pycocoevalcap"):
        print(json.dumps({"showtell": showtell, "pycocoevalcap": pycocoevalcap}[task](Path(paths[0]))))
    else:
        sys.exit(__doc__)
