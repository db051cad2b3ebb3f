"""Pillow's decoders with their own settings, instead of Pillow's global ones.

Pillow keeps settings in globals that any library may change for the whole process: whether cut files are accepted, how many
pixels are too many. Changing them back would change them for others. So the few functions that read them run here with their
own globals.
"""

import types
from typing import Any

from PIL import Image, ImageFile

_SETTINGS: dict[str, Any] = {
    "LOAD_TRUNCATED_IMAGES": False,
    "USE_RAW_ALPHA": False,  # BMP: whether the fourth byte is transparency even if the header does not say so
    "READ_LIBTIFF": False,
    "DECODE_CODEC_CHOICE": "auto",  # AVIF
}


def isolated(plugin: type[ImageFile.ImageFile], max_pixels: int) -> type[ImageFile.ImageFile]:
    """A subclass of `plugin` that decodes with Pillow's default settings.

    Pillow's decoders check sizes before they allocate memory: `max_pixels` is the limit, beyond which they raise
    DecompressionBombError.
    """

    def check(size: tuple[int, int], **_: Any) -> None:
        if size[0] * size[1] > max_pixels:
            raise Image.DecompressionBombError(f"{size[0]} x {size[1]}; at most {max_pixels:,} are decoded")

    settings = {**_SETTINGS, "_decompression_bomb_check": check}
    line = plugin.__mro__
    own = line[: line.index(ImageFile.ImageFile)]
    # `super()` in the plugin's classes finds the methods of `base`.
    base = types.new_class(
        "Isolated", (ImageFile.ImageFile,), {}, lambda names: names.update(_methods(ImageFile.ImageFile, settings))
    )
    methods: dict[str, Any] = {}
    for ancestor in reversed(own):
        methods = {name: method for name, method in methods.items() if name not in vars(ancestor)} | _methods(
            ancestor, settings
        )
    return types.new_class(plugin.__name__, (plugin, base), {}, lambda names: names.update(methods))


def _methods(owner: type, settings: dict[str, Any]) -> dict[str, Any]:
    """The methods of a class that read one of the settings, changed to read `settings`."""
    return {
        name: _with_settings(method, settings)
        for name, method in vars(owner).items()
        if isinstance(method, types.FunctionType) and not settings.keys().isdisjoint(method.__code__.co_names)
    }


def _with_settings(function: types.FunctionType, settings: dict[str, Any]) -> types.FunctionType:
    names = dict(function.__globals__)
    names |= {name: value for name, value in settings.items() if name in names}
    names |= {name: _Module(names[name], settings) for name in ("Image", "ImageFile") if name in names}
    return types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)


class _Module:
    """A module with some names replaced."""

    def __init__(self, module: types.ModuleType, replaced: dict[str, Any]) -> None:
        self._module, self._replaced = module, replaced

    def __getattr__(self, name: str) -> Any:
        return self._replaced[name] if name in self._replaced else getattr(self._module, name)
