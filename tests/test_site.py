"""The documentation's site builds without a warning, has no dead link, needs no other server, and is accessible."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("zensical", reason="the extra `docs` is not installed")
pytest.importorskip("latex2mathml", reason="the extra `docs` is not installed")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

ROOT = Path(__file__).parents[1]
SITE = ROOT / "build" / "site"
PHONE = {"width": 390, "height": 844}
# Text, tables and a picture; equations, code and charts.
KINDS = ["index.html", "docs/course/evaluation.html"]


@pytest.fixture(scope="module")
def site() -> Path:
    """The built site."""
    done = subprocess.run([sys.executable, ROOT / "docs" / "site.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return SITE


class Page(HTMLParser):
    """The links of an HTML page, what it loads by itself, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag == "link" and given.get("href"):
            self.loads.append(given["href"])
        elif given.get("src"):
            self.loads.append(given["src"])


def test_links_and_anchors_of_the_site_lead_somewhere(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}  # its links depend on the host
    assert len(pages) > 20
    dead = []
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme in ("https", "http", "mailto"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchored = not parts.fragment or target not in pages or parts.fragment in pages[target].anchors | {"__skip"}
            if not target.is_file() or not anchored:
                dead.append(f"{path.relative_to(site)}: {link}")
    assert not dead


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert not [load for load in Page(path).loads if re.match(r"(https?:)?//", load)], path


def test_every_page_of_the_repository_is_in_the_site(site: Path) -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    missing = [page.name for page in pages if page.name != "README.md" and not _built(site, page).is_file()]
    assert not missing
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert not [page.name for page in pages if f" {page.relative_to(ROOT).as_posix()}\n" not in navigation]


def test_equations_are_mathml(site: Path) -> None:
    equations = sum(path.read_text(encoding="utf-8").count("<math ") for path in site.rglob("*.html"))
    assert equations > 50
    assert not [path for path in site.rglob("*.html") if 'class="arithmatex"' in path.read_text(encoding="utf-8")]


def _built(site: Path, page: Path) -> Path:
    return site / page.relative_to(ROOT).with_suffix(".html")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", KINDS)
def test_pages_open_from_disk_fit_a_phone_and_are_accessible(site: Path, browser: Browser, name: str, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme, viewport=PHONE, reduced_motion="reduce")
    page = context.new_page()
    complaints: list[str] = []
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else complaints.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((site / name).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    violations = Axe().run(page).response["violations"]
    page.set_viewport_size({"width": 1280, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    serious = [each for each in violations if each["impact"] in ("serious", "critical")]
    assert not serious, [(each["id"], each["nodes"][0]["html"]) for each in serious]
    assert not complaints
    context.close()


@pytest.mark.browser
def test_search_works_from_disk(site: Path, browser: Browser) -> None:
    page = browser.new_page()
    page.goto((site / "docs" / "page.html").as_uri())
    page.get_by_role("button", name="Search").first.click()
    box = page.get_by_placeholder("Search")
    expect(box).to_be_visible(timeout=60_000)
    box.fill("upload too slow")
    result = page.get_by_role("option", name="Errors")
    expect(result.first).to_be_visible(timeout=60_000)
    assert box.input_value() == "upload too slow"
    page.close()
