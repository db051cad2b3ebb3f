"""The metrics rank captions as people do, by as much as published."""

import os
import runpy
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "metric_agreement.py"
# CLIPScore paper, table 1
PUBLISHED = {"BLEU-1": 32.3, "BLEU-4": 30.8, "ROUGE-L": 32.3, "CIDEr": 43.9}


@pytest.mark.real
@pytest.mark.skipif("SHOWTELL_FLICKR8K" not in os.environ, reason="$SHOWTELL_FLICKR8K, the folder of Flickr8k, is not set")
def test_kendall_tau_on_flickr8k_expert():
    found = runpy.run_path(str(BENCHMARK))["expert_agreement"](Path(os.environ["SHOWTELL_FLICKR8K"]))
    assert {name: found[name] for name in PUBLISHED} == pytest.approx(PUBLISHED, abs=0.2)
