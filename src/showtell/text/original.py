"""The tokenizer of the original project, kept so that its model can be trained for comparison.

Text is lowered, words are runs of the letters a to z, and words of one letter are dropped, even "a": "A man's T-shirt" becomes
man, shirt.
"""

import re

_WORD = re.compile("[a-z]+")


def tokenize(caption: str) -> list[str]:
    """The tokens of a caption."""
    return [word for word in _WORD.findall(caption.lower()) if len(word) > 1]
