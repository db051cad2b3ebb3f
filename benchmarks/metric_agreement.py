"""How well the metrics agree with people: Kendall's tau-c on Flickr8k-Expert.

    python benchmarks/metric_agreement.py FLICKR8K_FOLDER

Protocol of the CLIPScore paper (Hessel et al. 2021, table 1): each of the 5,822 pairs of a photo and a caption has three
ratings from 1 to 4; pairs whose caption is one of the photo's own references are dropped (5,664 stay); each pair is scored
against the photo's five references, all pairs as one corpus; scores and ratings are flattened to three a pair. Published:
BLEU-1 32.3, BLEU-4 30.8, ROUGE-L 32.3, CIDEr 43.9.
"""

import argparse
from pathlib import Path

from scipy.stats import kendalltau

from showtell.evaluation import read_references
from showtell.metrics import DEFAULT_METRICS, METRICS, score


def expert_agreement(folder: Path, metrics: tuple[str, ...] = DEFAULT_METRICS) -> dict[str, float]:
    """Kendall's tau-c by metric, times 100."""
    references = read_references(next(folder.rglob("Flickr8k.token.txt"))).captions
    candidates: dict[str, str] = {}
    targets: dict[str, tuple[str, ...]] = {}
    ratings: list[int] = []
    for line in next(folder.rglob("ExpertAnnotations.txt")).read_text(encoding="utf-8").splitlines():
        photo, caption, *given = line.split("\t")
        source, number = caption.split("#")
        text = references[source][int(number)]
        if text in references[photo]:
            continue
        pair = f"{photo} {caption}"
        candidates[pair], targets[pair] = text, references[photo]
        ratings += map(int, given)
    scores = score(candidates, targets, metrics)
    return {
        name: 100 * kendalltau([value for value in result.images for _ in range(3)], ratings, variant="c").statistic
        for name, result in scores.results.items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--metrics", default=",".join(DEFAULT_METRICS), help=f"among {', '.join(METRICS)}")
    options = parser.parse_args()
    for metric, value in expert_agreement(options.folder, tuple(options.metrics.split(","))).items():
        print(f"{metric:12} {value:.2f}")
