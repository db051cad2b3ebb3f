"""showtell captions images.

>>> import showtell
>>> captioner = showtell.load()
>>> captioner("photo.jpg").text
'a brown dog is running through the snow'
"""

import os as _os
from typing import TYPE_CHECKING, Any

from showtell.errors import ShowtellError
from showtell.types import Caption, DecodeOptions, Record

if TYPE_CHECKING:
    from showtell.runtime import Captioner, load

__all__ = ["Caption", "Captioner", "DecodeOptions", "Record", "ShowtellError", "load"]
__version__: str

# From 1.29 on, onnxruntime's Linux builds write an identifier of the machine into ~/.cache and report what they run to their
# maker. showtell works offline and leaves nothing behind; onnxruntime reads this when it is imported.
_os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    # These take a while to import: `showtell --help` can do without onnxruntime, and captioning without the package's metadata.
    if name == "__version__":
        from importlib.metadata import version

        return version("showtell")
    if name in ("Captioner", "load"):
        from showtell import runtime

        return getattr(runtime, name)
    raise AttributeError(f"module 'showtell' has no attribute {name!r}")
