"""The original project's way of cutting captions, kept so that its model can be trained and compared with ours.

Lower case; everything but a to z parts words; words of one letter are dropped, so that "a" is never said:
"A man's T-shirt" becomes man, shirt.
"""

import re

_WORD = re.compile("[a-z]+")


def tokenize(caption: str) -> list[str]:
    """The words of `caption`."""
    return [word for word in _WORD.findall(caption.lower()) if len(word) > 1]
