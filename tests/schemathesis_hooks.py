"""What schemathesis cannot know from a schema: the bytes of a photo."""

import schemathesis
from hypothesis import strategies as st

from serving import photo

PHOTOS = st.sampled_from([photo(grey, format_=format_) for grey in (0, 99) for format_ in ("PNG", "JPEG")])
for kind in ("application/octet-stream", "image/*"):
    schemathesis.openapi.media_type(kind, PHOTOS)
