"""What schemathesis cannot know from a schema: the bytes of a photo, the words of the model, and which options agree."""

from typing import Any

import schemathesis
from hypothesis import strategies as st

from serving import photo

PHOTOS = st.sampled_from([photo(grey, format_=format_) for grey in (0, 99) for format_ in ("PNG", "JPEG")])
for kind in ("application/octet-stream", "image/*"):
    schemathesis.openapi.media_type(kind, PHOTOS)


KNOWN: dict[str, Any] = {"start_with": "a", "include": ["dog"], "avoid": ["cat"]}
MOST = {"start_with": 1, "include": 2, "avoid": 100}  # texts, of 100 characters each


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Puts words that the model knows in the place of allowed texts, and lengths that agree in the place of allowed ones."""
    query = case.query or {}
    for name, known in KNOWN.items():
        texts = query.get(name, 0)
        texts = [texts] if isinstance(texts, str) else texts
        if isinstance(texts, list) and len(texts) <= MOST[name] and all(isinstance(t, str) and len(t) <= 100 for t in texts):
            query[name] = known
    if str(query.get("max_length")) in ("1", "2"):  # no room for these words
        query["max_length"] = 3
    if str(query.get("min_length")) in map(str, range(41)):
        query["min_length"] = 1
