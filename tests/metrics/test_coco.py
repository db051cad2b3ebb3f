"""METEOR through Java: right numbers, under a locale of decimal commas and out of a folder with a space in its name."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from showtell.metrics import coco

pytestmark = pytest.mark.skipif(shutil.which("java") is None, reason="there is no java on the PATH")

CANDIDATES = [["a", "dog", "is", "running", "in", "grass"], [], ["two", "men", "ride", "bikes"], ["cars"]]
REFERENCES = [
    [["a", "dog", "runs", "on", "the", "grass"], ["the", "dog", "is", "running"]],
    [["two", "men"], ["people"]],
    [["two", "men", "ride", "bikes"]],
    [["a", "car", "drives"], ["an", "automobile"]],
]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    folder = tmp_path_factory.mktemp("with space") / "pyco co"
    shutil.copytree(Path(coco.package_folder("METEOR"), "meteor"), folder / "meteor")
    return folder


# What pycocoevalcap 1.2's own wrapper answers.
CORPUS, IMAGES = 0.3746480710712611, [0.421916911698492, 0.0, 1.0, 0.16368925304829193]


def test_equals_pycocoevalcap_in_any_locale_and_folder(monkeypatch, elsewhere):
    monkeypatch.setattr(coco, "package_folder", lambda metric: elsewhere)
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE")
    result = coco.meteor(CANDIDATES, REFERENCES)["METEOR"]

    np.testing.assert_allclose(result.images, IMAGES, atol=1e-9)
    assert result.corpus == pytest.approx(CORPUS, abs=1e-9)


def test_spice_reads_what_its_program_writes(monkeypatch, tmp_path):
    """SPICE's models cannot be shipped with a test; a stand-in for its program answers in its format."""
    lib = tmp_path / "spice" / "lib"
    lib.mkdir(parents=True)
    for jar in ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"):
        (lib / jar).touch()
    program = tmp_path / "java"
    program.write_text(
        "#!/bin/sh\n"
        'while [ "$1" != -out ]; do shift; done\n'
        """echo '[{"image_id": 1, "scores": {"All": {"f": 0.5}}}, {"image_id": 0, "scores": {"All": {"f": 0.25}}}]' > "$2"\n"""
    )
    program.chmod(0o755)
    monkeypatch.setattr(coco, "package_folder", lambda metric: tmp_path)
    monkeypatch.setattr(coco, "java_path", lambda metric: str(program))
    result = coco.spice(CANDIDATES[:2], REFERENCES[:2])["SPICE"]
    np.testing.assert_array_equal(result.images, [0.25, 0.5])
