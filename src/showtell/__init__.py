"""showtell captions images.

>>> import showtell
>>> captioner = showtell.load()
>>> captioner("photo.jpg").text
'a brown dog is running through the snow'
"""

import os as _os
from typing import TYPE_CHECKING, Any

from showtell.errors import BundleError, ImageError, OptionError, ShowtellError
from showtell.image import ImageSettings
from showtell.types import Caption, ConfidenceOptions, DecodeOptions, Label, Record

if TYPE_CHECKING:
    from showtell.runtime import Captioner, load
    from showtell.runtime.explain import explain

__all__ = [
    "BundleError",
    "Caption",
    "Captioner",
    "ConfidenceOptions",
    "DecodeOptions",
    "ImageError",
    "ImageSettings",
    "Label",
    "OptionError",
    "Record",
    "ShowtellError",
    "explain",
    "load",
]
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
    if name == "explain":
        from showtell.runtime.explain import explain

        return explain
    raise AttributeError(f"module 'showtell' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
