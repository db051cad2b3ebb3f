"""showtell captions images.

>>> import showtell
>>> captioner = showtell.load()
>>> captioner("photo.jpg").text
'a brown dog is running through the snow'
"""

import os as _os
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

from showtell.errors import ShowtellError
from showtell.types import Caption, DecodeOptions, Record

if TYPE_CHECKING:
    from showtell.runtime import Captioner, load

__all__ = ["Caption", "Captioner", "DecodeOptions", "Record", "ShowtellError", "load"]
__version__ = _version("showtell")

# From 1.29 on, onnxruntime's Linux builds write an identifier of the machine into ~/.cache and report what they run to their
# maker. showtell works offline and leaves nothing behind; onnxruntime reads this when it is imported.
_os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    # onnxruntime takes a while to import, and `showtell --help` can do without.
    if name in ("Captioner", "load"):
        from showtell import runtime

        return getattr(runtime, name)
    raise AttributeError(f"module 'showtell' has no attribute {name!r}")
