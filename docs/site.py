"""Builds the documentation as a site in build/site: python docs/site.py (needs the extra `docs`)

The pages are the repository's own files, at the repository's own paths, so that every relative link that works on GitHub works
on the site, too. They are copied to build/pages, because Zensical takes a folder of pages. Equations are LaTeX between dollars,
which GitHub renders; here they become MathML, which browsers render without a script. The site asks no other server for
anything, and opens from disk.
"""

import html
import re
import shutil
import subprocess
import sys
from pathlib import Path

from latex2mathml.converter import convert

ROOT = Path(__file__).parents[1]
PAGES, SITE = ROOT / "build" / "pages", ROOT / "build" / "site"
# Pages, and files that pages link to or show.
SHOWN = ["*.md", "LICENSE", "CITATION.cff", "benchmarks/*.md", "deploy/*", "docs/**/*", "examples/**/*"]
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
CDN_WORKER = "https://unpkg.com/iframe-worker/shim"  # written by the theme for pages opened from disk


def copy_pages() -> None:
    """The files that the site shows, copied to build/pages."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for path in sorted({path for pattern in SHOWN for path in ROOT.glob(pattern)}):
        if path.is_file() and path.suffix != ".pyc":
            target = PAGES / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def finish(page: str, depth: int) -> str:
    """The HTML of a page that lies `depth` folders below the site's, with MathML and without anything of other servers."""
    return EQUATION.sub(mathml, page).replace(CDN_WORKER, "../" * depth + "docs/file-worker.js")


def mathml(match: re.Match[str]) -> str:
    """An equation that arithmatex left between \\( \\) or \\[ \\]."""
    found = convert(html.unescape(match[2]), display="block" if match[1] == "div" else "inline")
    found = found.replace(' display="block"', ' display="block" tabindex="0"')  # it scrolls where it is wide
    # Browsers set no space after the name of a function.
    return re.sub(r"(<mi>(?:log|exp|tanh)</mi>)(?!<mo)", r'\1<mspace width="0.17em"/>', found)


def main() -> int:
    copy_pages()
    done = subprocess.run([sys.executable, "-m", "zensical", "build", "--strict", "--clean"], cwd=ROOT, check=False)
    if done.returncode:
        return done.returncode
    for path in SITE.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        path.write_text(finish(text, len(path.relative_to(SITE).parts) - 1), encoding="utf-8")
    print(f"open {(SITE / 'index.html').relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
