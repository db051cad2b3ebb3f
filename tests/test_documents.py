"""The documents: their commands run, generated parts are up to date, links lead somewhere, pages are short."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest

import showtell
from showtell.serve.metrics import Metrics

ROOT = Path(__file__).parents[1]
LOGS = {"experiments.md"}  # of what was tried: its commands are those of other versions
GENERATED = {"api.md", "cli.md", "errors.md", "recipe-keys.md", "settings.md"}
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = [page for page in PAGES if page.name not in LOGS | GENERATED]

# Blocks that no test runs, by page: whoever marks another has to list it here, with its reason in the page.
NOT_RUN = {
    "archives.md": ["needs a bucket"],
    "README.md": ["make test is this very test", "serves until it is stopped"],
    "CONTRIBUTING.md": ["make test is this very test"],
    "benchmarks.md": [
        "needs the COCO photos; tests/test_embedded.py measures these scores",
        "needs the COCO photos, and a model of an earlier commit",
    ],
    "captioners.md": [
        "downloads a model; tests/captioners runs tiny ones",
        "needs a server; tests/captioners has one of its own",
        "needs an account on the Hub; tests/captioners has a server of its own",
    ],
    "choosing.md": ["downloads a model; tests/captioners runs tiny ones"],
    "confidence.md": ["needs hundreds of photos; tests/evaluation calibrates a bundle"],
    "data.md": ["needs a download; tests/data fetches from a server of their own"],
    "encoders.md": ["downloads a model; tests/nn trains with tiny ones"],
    "finetuning.md": [
        "needs a download",
        "trains on downloaded drawings; tests/train fine-tunes on others",
        "needs the model of the run above",
        "trains on downloaded drawings; tests/train fine-tunes on others",
    ],
    "images.md": ["needs a download and runs for hours"],
    "merge.md": ["the notebook training.ipynb does this, and a test runs it"],
    "scaling.md": ["tests/archive/test_cluster.py starts Ray", "needs several machines"],
    "service.md": [
        "serves until it is stopped",
        "needs a running service; tests/serve sends these requests",
        "needs a running service; tests/test_client.py runs such a client",
        "needs a container engine",
        "changes the system",
    ],
    "training.md": ["takes more than an hour", "starts several processes; a test of the trainer does"],
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    not_run: str | None  # the reason in the comment before it


def blocks(page: Path) -> list[Block]:
    """The page's blocks, without those that hold a piece of the source."""
    text = re.sub(r"^<!-- code: .*? -->\n```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    pattern = r"(?:<!-- not run: (.*?) -->\n)?^```(\w*)\n(.*?)^```$"
    found = re.findall(pattern, text, re.DOTALL | re.MULTILINE)
    return [Block(language, text, reason or None) for reason, language, text in found]


def prose(page: Path) -> list[str]:
    """The lines of a page outside of blocks, tables, headings, pictures and comments."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^\$\$.*?^\$\$$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [line for line in text.splitlines() if not line.startswith(("|", "<!--", "#", "!["))]


@pytest.fixture(scope="module")
def place(shapes: Path, learnt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example photos and small data sets under the names that the documents use."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "examples").symlink_to(ROOT / "examples")
    shutil.copytree(shapes, folder / "FLICKR8K")
    coco = Path(shutil.copytree(shapes, folder / "COCO"))
    for photo in (coco / "images").iterdir():
        photo.rename(photo.with_name(f"coco-{photo.name}"))
    for file in coco.glob("*.txt"):
        lines = file.read_text(encoding="utf-8").splitlines()
        file.write_text("\n".join(f"coco-{line}" for line in lines if line), encoding="utf-8")
    shutil.copy(ROOT / "examples" / "photos" / "cat.jpg", folder / "photo.jpg")
    bin_ = folder / "bin"
    bin_.mkdir()
    (bin_ / "showtell").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m showtell "$@"\n')
    (bin_ / "showtell").chmod(0o755)
    return folder


def run(command: list[str], place: Path) -> None:
    path = os.pathsep.join([str(place / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "XDG_CACHE_HOME": str(place / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_every_block_of_a_page_runs(page: Path, place: Path, float_bundle: Path) -> None:
    """In order, in one folder. Packages are installed already, so that lines with `pip install` are left out."""
    shutil.rmtree(place / "runs", ignore_errors=True)
    if page.name == "metrics.md" and not (place / "my-model").exists():
        shutil.copytree(float_bundle, place / "my-model")  # made by another page's commands
    for block in blocks(page):
        if block.not_run is None and block.language == "sh":
            lines = [line for line in block.text.splitlines() if not line.startswith("pip install")]
            # A check that has findings, as this data has, ends with 1.
            lines = [f"{line} || test $? = 1" if line.startswith("showtell data check") else line for line in lines]
            run(["bash", "-euo", "pipefail", "-c", "\n".join(lines)], place)
        elif block.not_run is None and block.language == "python":
            run([sys.executable, "-c", block.text], place)
        else:
            assert block.not_run or block.language in ("text", "json"), f"{page.name}: a block of {block.language!r}"


def test_blocks_that_do_not_run_are_listed() -> None:
    found = {page.name: [block.not_run for block in blocks(page) if block.not_run] for page in RUN}
    assert {name: reasons for name, reasons in found.items() if reasons} == NOT_RUN


def test_no_page_has_commands_that_are_not_fenced() -> None:
    for page in RUN:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        assert not re.search(r"^    (showtell|pip|python|curl|make) ", text, re.MULTILINE), page.name


def test_generated_parts_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere() -> None:
    broken = []
    for page in [*PAGES, *(ROOT / "benchmarks").glob("*.md"), *(ROOT / "examples").glob("*.md"), ROOT / "CHANGELOG.md"]:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", link):
                continue
            target, _, anchor = unquote(link).partition("#")
            path = (page.parent / target).resolve() if target else page
            if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
                broken.append(f"{page.name}: {link}")
    assert not broken


def test_files_that_the_map_names_are_there() -> None:
    text = re.sub(r"<!-- tree -->.*<!-- /tree -->", "", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    named = re.findall(r"`([\w/]+(?:/|\.py))`", text)
    assert len(named) > 30
    assert not [path for path in named if not (ROOT / "src" / "showtell" / path).exists()]


def test_pages_are_short() -> None:
    readme, training = (path.read_text(encoding="utf-8") for path in (ROOT / "README.md", ROOT / "docs" / "training.md"))
    assert len(readme.splitlines()) <= 100
    assert len(readme.split()) <= 800
    assert len(training.splitlines()) <= 150


@pytest.mark.parametrize("page", [page for page in RUN if page.name != "model-card.md"], ids=lambda page: page.name)
def test_lines_of_prose_are_short(page: Path) -> None:
    """At most 100 characters, unless a line is one link or one piece of code."""
    assert not [line for line in prose(page) if len(line) > 100 and len(line.split()) > 2]


def named(heading: str, page: str = "formats.md") -> set[str]:
    """What the tables of a section name in their first column."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    section = re.split(r"^## ", text.split(f"\n## {heading}\n")[1], flags=re.MULTILINE)[0]
    return {
        name for line in section.splitlines() if line.startswith("| `") for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    }


def test_formats_of_records_and_bundles_are_as_described(tmp_path: Path) -> None:
    captioner = showtell.load(threads=1)
    labels = showtell.ConfidenceOptions(labels=True)
    records = captioner.records([ROOT / "examples" / "photos" / "cat.jpg", "no-such.jpg"], attention=True, confidence=labels)
    assert set().union(*(record.to_json() for record in records)) == named("Record")
    bundle = captioner.bundle
    written = {path.name for path in bundle.folder.iterdir()} | set(bundle.config.json)
    assert written - {"mean_of"} == named("Bundle")  # of a model that `showtell average` made


def test_formats_of_runs_and_checkpoints_are_as_described(learnt: Path) -> None:
    optional = {"words.json", "borrowed.jsonl"}
    assert {path.name for path in learnt.iterdir()} == {name.rstrip("/") for name in named("Training run")} - optional
    for checkpoint in (learnt / "checkpoints").iterdir():
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        assert {path.name for path in checkpoint.iterdir()} | set(config) == named("Checkpoint")
    lines = [json.loads(line) for line in (learnt / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    [row] = [
        line for line in (ROOT / "docs" / "formats.md").read_text(encoding="utf-8").splitlines() if "`metrics.jsonl`" in line
    ]
    assert set().union(*lines) == set(re.findall(r"`(\w+)`", row.split("|")[2]))


def test_settings_name_every_environment_variable() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    read = set(re.findall(r"environ(?:\.get\(|\[)\"(\w+)\"", code)) - {"WORLD_SIZE", "LOCAL_RANK"}  # set by torchrun
    assert read <= named("Environment variables", "settings.md")


def test_metrics_of_the_service_that_the_guide_names_exist() -> None:
    served = Metrics().page().decode()
    guide = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    used = set(re.findall(r"showtell_\w+", guide))
    assert len(used) > 5
    assert not [name for name in used if re.sub(r"_(bucket|sum|count)$", "", name) not in served]
