"""Matches names with paths: by the end of a path, exactly or loosely, and similar paths for names without a match."""

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from itertools import takewhile
from urllib.parse import unquote

from showtell.image import SUFFIXES

LOOSEST = 3


def loose(name: str, level: int) -> str:
    """A name without the differences that systems make.

    Level 0 changes nothing. Level 1 composes characters (NFC) and decodes %20, level 2 ignores case, level 3 removes a photo's
    suffix and the query of a URL.
    """
    if level >= 1:
        name = unicodedata.normalize("NFC", unquote(name))
    if level >= 2:
        name = name.casefold()
    if level >= 3:
        name = name.partition("?")[0]
        stem, dot, suffix = name.rpartition(".")
        name = stem if stem and dot + suffix in SUFFIXES else name
    return name


def base(path: str) -> str:
    """The last component of a path."""
    return path.rsplit("/", 1)[-1]


class Names:
    """An index of paths by their ends."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._by_base: list[dict[str, list[str]]] = [{}]
        for path in paths:
            self.add(path)

    def add(self, path: str) -> None:
        """Adds a path."""
        self._by_base[0].setdefault(base(path), []).append(path)
        del self._by_base[1:]

    def ending(self, name: str, level: int = 0) -> list[str]:
        """The paths that end in `name`, folders included, compared at that `level` of `loose`."""
        parts = loose(name, level).count("/") + 1
        return [path for path in self._same_base(name, level) if _shared(path, name, level) >= parts]

    def match(self, names: Iterable[str], taken: Collection[str] = (), *, folders: bool = True) -> dict[str, str]:
        """The path of each name, matched at level 0 first; no path matches two names, or is in `taken`.

        An ambiguous name has no match. Without `folders`, a name may have other folders than the path: the path with the
        longest common end matches.
        """
        matches: dict[str, str] = {}
        left, taken = dict.fromkeys(names), set(taken)
        for level in range(LOOSEST + 1):
            candidates: dict[str, list[tuple[int, str]]] = defaultdict(list)  # names of each path, with their common parts
            for name in left:
                paths = (self.ending if folders else self._same_base)(name, level)
                shared = [_shared(path, name, level) for path in paths]
                if shared and shared.count(most := max(shared)) == 1 and (path := paths[shared.index(most)]) not in taken:
                    candidates[path].append((most, name))
            for path, pairs in candidates.items():
                most, name = max(pairs)
                if [shared for shared, _ in pairs].count(most) == 1:
                    matches[name] = path
                    taken.add(path)
                    del left[name]
        return matches

    def near(self, name: str) -> list[str]:
        """At most two paths similar to a name that has no match."""
        paths = self._same_base(name, LOOSEST)
        if not paths:
            index = self._index(LOOSEST)
            paths = [index[close][0] for close in get_close_matches(loose(base(name), LOOSEST), index, 2, 0.8)]
        return paths[:2]

    def _same_base(self, name: str, level: int) -> list[str]:
        return self._index(level).get(base(loose(name, level)), [])

    def _index(self, level: int) -> dict[str, list[str]]:
        while len(self._by_base) <= level:
            index: dict[str, list[str]] = {}
            for paths in self._by_base[0].values():
                for path in paths:
                    index.setdefault(base(loose(path, len(self._by_base))), []).append(path)
            self._by_base.append(index)
        return self._by_base[level]


def _shared(path: str, name: str, level: int) -> int:
    """The number of components that two paths share at their ends."""
    pairs = zip(reversed(loose(path, level).split("/")), reversed(loose(name, level).split("/")), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
