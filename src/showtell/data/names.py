"""What names mean: a photo by its path or by the end of one, and what a name that means none may have been meant to be."""

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from urllib.parse import unquote

from showtell.image import SUFFIXES

LOOSEST = 3


def loose(name: str, level: int) -> str:
    """A name without what systems change in it.

    At level 0 it is as it is, at 1 composed (NFC) and without %20, at 2 in small letters, at 3 without a photo's suffix and
    what follows it in an address.
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
    """A path's last part."""
    return path.rsplit("/", 1)[-1]


class Names:
    """Paths that are found by their ends."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._by_base: list[dict[str, list[str]]] = [{}]
        for path in paths:
            self.add(path)

    def add(self, path: str) -> None:
        """Takes up one more path."""
        self._by_base[0].setdefault(base(path), []).append(path)
        del self._by_base[1:]

    def ending(self, name: str, level: int = 0) -> list[str]:
        """The paths that end in `name`, folders included, as loosely as `level` says."""
        parts = loose(name, level).count("/") + 1
        return [path for path in self._alike(name, level) if _shared(path, name, level) >= parts]

    def claims(self, names: Iterable[str], taken: Collection[str] = (), *, folders: bool = True) -> dict[str, str]:
        """The path that each name means, strictly first and loosely then; never one path for two names, nor one of `taken`.

        Where several would do, none is taken. Without `folders`, names may have other folders than the path: the path that
        shares most of its end with the name is meant.
        """
        found: dict[str, str] = {}
        left, taken = dict.fromkeys(names), set(taken)
        for level in range(LOOSEST + 1):
            asked: dict[str, list[tuple[int, str]]] = defaultdict(list)
            for name in left:
                paths = (self.ending if folders else self._alike)(name, level)
                shared = [_shared(path, name, level) for path in paths]
                if shared and shared.count(most := max(shared)) == 1 and (path := paths[shared.index(most)]) not in taken:
                    asked[path].append((most, name))
            for path, askers in asked.items():
                most, name = max(askers)
                if [shared for shared, _ in askers].count(most) == 1:
                    found[name] = path
                    taken.add(path)
                    del left[name]
        return found

    def near(self, name: str) -> list[str]:
        """At most two paths that a name which means none may have been meant to be."""
        alike = self._alike(name, LOOSEST)
        if not alike:
            close = get_close_matches(loose(base(name), LOOSEST), self._index(LOOSEST), 2, 0.8)
            alike = [self._index(LOOSEST)[found][0] for found in close]
        return alike[:2]

    def _alike(self, name: str, level: int) -> list[str]:
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
    """How many of their last parts two paths share."""
    count = 0
    for ours, theirs in zip(reversed(loose(path, level).split("/")), reversed(loose(name, level).split("/")), strict=False):
        if ours != theirs:
            break
        count += 1
    return count
