r"""The Stanford PTBTokenizer without Java.

Caption scores are defined on the tokens that coco-caption gets from Stanford's Penn Treebank tokenizer (Marcus et al. 1993;
CoreNLP 3.4.1, options `-preserveLines -lowerCase`), less a list of punctuation tokens. This module was written from that
program's output for several million probes, and reproduces its oddities: `-lrb-` stays a token because the punctuation list has
it in capitals only, prices in pounds begin with `#`, and emoji are dropped.

A lexer takes the longest token at each position; of two rules with equally long matches, the earlier one wins. A rule may look
ahead (`do` before `n't`): the lookahead counts towards its length, and only its group 1 becomes the token.
"""

import re
from functools import lru_cache

# --- characters -------------------------------------------------------------------------------------------------------
# Numerals that are word characters for Python but not for the Stanford lexer.
_NUMERALS = "\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209c\u2150-\u2189\u2460-\u24ff\u2776-\u2793\u3007\u3021-\u3029"
# Accents and vowel signs in words that are no word characters for Python.
_MARKS = (
    "\u02c2-\u02c5\u02d2-\u02df\u02e5-\u02eb\u02ed\u02ef-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    "\u0615-\u061a\u064b-\u065e\u0670\u06d6-\u06e4\u06e7-\u06ed\u0730-\u074c\u0900-\u0903\u093c\u093e-\u094e\u0951-\u0955"
    "\u0962\u0963\u0981-\u0983\u09bc-\u09cd\u0a01-\u0a03\u0a3c-\u0a4d\u0a81-\u0a83\u0abc-\u0acd\u0b82\u0bbe-\u0bcd\u0c01-\u0c03"
    "\u0c3e-\u0c56\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd"
)
_LETTER = rf"(?:[^\W\d_{_NUMERALS}]|[{_MARKS}]|&[aeiouAEIOU](?:acute|grave|uml);)"
_ALNUM = rf"(?:[^\W_{_NUMERALS}]|[{_MARKS}]|&[aeiouAEIOU](?:acute|grave|uml);)"
# Signs that are tokens. Other signs outside words, such as emoji, give no token.
_KNOWN = re.compile(
    rf"{_ALNUM}|["
    "!-/:-@\\[-`{-~\u00a1\u00a5-\u00a9\u00ac\u00ae-\u00b4\u00b6-\u00b9\u00bf\u00d7\u00f7\u037e\u0387\u0589\u05be\u05c0\u05c3"
    "\u05c6\u05f3\u05f4\u0600-\u0603\u0606-\u060c\u0614\u061b\u061e\u061f\u066a\u066d\u06d4\u0700-\u070d\u0964\u0965\u0e3f\u0e4f"
    "\u2016\u2017\u201a\u201e-\u2023\u2030-\u2038\u203b\u203e-\u2042\u2044\u2070\u2074-\u207e\u2080-\u208e\u20a4\u2100-\u214f"
    "\u2155-\u215e\u2190-\u2bff\u3001\u3002\u3012\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\uffe0-\uffe6]"
)
_APOSTROPHE = "['\u2019\u0092]"
_QUOTES = "\u0091-\u0094\u00ab\u00bb\u2018-\u201f\u2039\u203a"
_GAP = r"[ \t\u00a0]"

# --- pieces of rules --------------------------------------------------------------------------------------------------
_WORD = rf"{_LETTER}{_ALNUM}*(?:[.!?]{_LETTER}{_ALNUM}*)*"
_PART = rf"(?:[dlonDLON]{_APOSTROPHE}{_ALNUM}{{2,}}|{_ALNUM}+)"  # Oreal, L'Oreal
_THING = rf"{_PART}(?:[-_\u2010\u2011]{_PART})*"
_NUMBER = r"(?:\d*(?:[.,:\u066b\u066c]\d+)+|\d+)"
_INITIALS = r"[A-Za-z](?:\.[A-Za-z])+\."
_SLASHED = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_PLACE = r"[^\s\"<>|.!?(){},]"  # a character of an address that may end one
_PATH = r"/[^\s\"<>|(){}]+[^\s\"<>|.!?(){},-]"

# Kept with their full stop, whatever follows; in the second list only when written with a capital, in the third only before
# a number.
_ABBREVIATIONS = (
    "ph\\.d|ed\\.d|adj|adm|adv|ala?|alex|apr|ariz|assn|assoc|asst|atty|aug|ave|bhd|bldg|blvd|brig|bros|calif|capt|cf|cie"
    "|cmdr|co|col|colo|comdr|conn|corp|cos|cpl|ct|dak|dec|dept|det|drs?|elec|ens|esq|est|etc|ext|feb|fla|fri|ft|ga|gen"
    "|govs?|hon|inc|ind|insp|intl|invt|jan|jos|jr|jul|jun|kans?|ky|lieut|lt|ltd|maj|mar|md|messrs|mfg|mich|minn|mlle|mme|mo"
    "|mon|mont|mr|mrs|ms|msgr|mtg?|natl|neb|nev|nov|oct|okla|penn|pfc|ph|plc|ppte|ppty|pres|profs?|ptes?|ptys?|pvt|rd|reps?"
    "|rev|rt|sens?|sept?|seq|sfc|sgt|spc|sq|sr|ste?|supt|sys|tel|tenn|thu|thurs|treas|tues?|univ|va|vs|vt|wed|wisc?|wm|wyo"
)
_STATES = "Ark|Az|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash"
_BEFORE_NUMBERS = "art|ca|figs?|nos?|op|pp|prop"
# A single letter keeps its full stop unless one of these begins a sentence behind it.
_STARTERS = (
    "A|About|According|Additionally|After|An|As|At|But|Earlier|He|Her|Here|However|If|In|It|Last|Many|More|Now|Once|One|Other"
    "|Our|She|Since|So|Some|Such|That|The|Their|Then|There|These|They|This|We|What|When|While|Yet|You"
)

# --- rules, in the order that breaks ties -----------------------------------------------------------------------------
_RULES = tuple(
    re.compile(rule)
    for rule in (
        # <b>, </b>, <a href="x">, <!-- x -->, <?x?>
        r"<[A-Za-z][A-Za-z0-9_.:@-]*(?:\s+[A-Za-z][\w.:-]*(?:\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'))?)*\s*/?>"
        r"|</[A-Za-z][\w.:@-]*\s*>|<![^<>]*>|<\?[^<>]*>",
        # words that fall in two: can not, gon na, 't is
        r"((?i:can))(?i:not)|((?i:gon|wan))(?i:na)|((?i:got))(?i:ta)|((?i:gim|lem))(?i:me)|('[tT])(?i:is|was)",
        # do + n't, dog + 's; a clitic on its own
        rf"({_LETTER}(?:{_ALNUM}|[.!?]{_LETTER})*?)[nN]['\u2019\u0092`\u2018\u0091][tT]",
        rf"({_WORD}){_APOSTROPHE}(?i:[msd]|re|ve|ll)(?![A-Za-z])",
        rf"({_APOSTROPHE}(?i:[msd]|re|ve|ll))[^A-Za-z]|{_APOSTROPHE}(?i:[msd]|re|ve|ll)$",
        r"[nN]['\u2019\u0092`\u2018\u0091][tT]",
        # words with apostrophes of their own
        rf"{_APOSTROPHE}[nN]{_APOSTROPHE}|{_APOSTROPHE}[nN](?=\s)|{_APOSTROPHE}(?i:em)|'(?i:till?|cause)"
        rf"|(?i:ol){_APOSTROPHE}|[dljDLJ]{_APOSTROPHE}|[yY]{_APOSTROPHE}(?=[A-Za-z])"
        r"|(?i:c'mon|cap'n|s'mores|nor'easter|nat'l|e'er)|S'more"
        rf"|{_LETTER}+[aeiouyAEIOUY]{_APOSTROPHE}[aeiouAEIOU]{_LETTER}*",
        rf"{_APOSTROPHE}(?:\d\d(?=\s|$)|[2-9]0s(?![A-Za-z0-9]))",
        _WORD,
        # addresses
        r"(?i:https?)://[^\s\"<>|(){}]+[^\s\"<>|.!?(){},-]",
        rf"(?i:www)\.(?:{_PLACE}+\.)+[a-zA-Z]{{2,4}}(?:{_PATH})?",
        rf"(?:[^\s\d\"`'<>|.!?(){{}},_$:;/@-]+\.)+(?i:com|net|org|edu)(?:{_PATH})?",
        r"<?[a-zA-Z0-9][^\s\"<>|()\u00a0{}]*@(?:[^\s\"<>|().\u00a0{}]+\.)*[^\s\"<>|().\u00a0{}]+>?",
        r"@[A-Za-z_]\w*",
        rf"#{_LETTER}+",
        # T-shirt, non-U.S., and/or
        _THING,
        rf"{_ALNUM}(?:{_ALNUM}|[.,\u00ad])*(?:-(?:{_INITIALS}|{_ALNUM}+))+",
        rf"{_SLASHED}(?:\\?/{_SLASHED}){{1,2}}",
        r"[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+|[cC]\+\+|[cCfF]#",
        # abbreviations
        _INITIALS,
        rf"(?:(?i:{_ABBREVIATIONS})|{_STATES}|{_STATES.upper()})\.",
        rf"[A-Za-z]\.(?!\s+(?:{_STARTERS}|{_STARTERS.upper()})\s)",
        rf"((?:{_WORD}|{_THING})\.)[,:;]",
        rf"((?i:{_BEFORE_NUMBERS})\.){_GAP}?\d",
        # numbers: -5.5, 31/12/1999, 1 1/2, (650) 723-0293, US$
        rf"[-+]?{_NUMBER}",
        r"\d{1,2}[-/]\d{1,2}[-/]\d{2,4}",
        rf"(?:\d{{1,4}}(?:-|{_GAP}))?\d{{1,4}}\\?/\d{{1,4}}(?!\d)",
        rf"(?:\(\d{{2,3}}\)(?:-|{_GAP})?|(?:\+\+?)?(?:\d{{2,4}}(?:-|{_GAP}))?\d{{2,4}}(?:[-/]|{_GAP}))"
        rf"\d{{3,4}}(?:-|{_GAP})?\d{{3,5}}",
        r"(?:(?:\+\+?)?\d{2,4}\.)?\d{2,4}\.\d{3,4}\.\d{3,5}",
        r"[A-Z]*\$",
        # smileys
        r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]](?![A-Za-z0-9])",
        r"[-^x=~<>']_[-^x=~<>']|\([-^x=~<>][_.-]?[-^x=~<>]\)",
        # punctuation
        r"[?!]+|\.\.\.|-{5,}|-{2,4}|\*+|_+|##+|@@+|<<|>>|``|''|&#\d+;|&(?:MD|mdash|ndash|(?i:amp|lt|gt|quot|apos|nbsp));"
        rf"|[{_QUOTES}]{{2}}|-(?i:[lr][rcs]b)-",
        r"(?s:.)",
    )
)

# The tokens that pycocoevalcap removes.
_PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
# Tokens that the Penn Treebank writes in another way.
_REWRITTEN = {
    "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-", '"': "''", "---": "--", "----": "--", "\u2026": "...",
    "\u00a2": "cents", "\u00a3": "#", "\u00a4": "$", "\u20a0": "$", "\u20ac": "$", "\u0080": "$",
    "\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3",
    "\u0096": "--", "\u0097": "--", "\u2013": "--", "\u2014": "--", "\u2015": "--",
    "&md;": "--", "&mdash;": "--", "&ndash;": "--",
    "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": "''", "&apos;": "'", "&nbsp;": "...",
}  # fmt: skip
_PLAIN_QUOTES = str.maketrans(
    {"\u0091": "`", "\u2018": "`", "\u201b": "`", "\u2039": "`", "\u0092": "'", "\u2019": "'", "\u203a": "'"}
    | {"\u0093": "``", "\u00ab": "``", "\u201c": "``", "\u0094": "''", "\u00bb": "''", "\u201d": "''"}
)
_QUOTED = re.compile(rf"[{_QUOTES}]+|n[{_QUOTES}]t|[{_QUOTES}](?:[msd]|re|ve|ll)")
_INSIDE = str.maketrans({"(": "-lrb-", ")": "-rrb-"} | dict.fromkeys(" \t", "\u00a0"))

# Tokens that depend on the text after a space: tags, "1 1/2", telephone numbers, "no. 5", "x. The".
_SPANNING = re.compile(rf"<[A-Za-z/!?]|[\d).]{_GAP}\d|\b[A-Za-z]\.\s+[A-Z]")
_SPLIT_WORDS = frozenset(["cannot", "gonna", "wanna", "gotta", "gimme", "lemme"])


def tokenize(caption: str) -> list[str]:
    """The tokens of one caption: lower case, without punctuation.

    A token may hold a no-break space (`1\u00a01/2`), as Stanford's do. Line breaks inside a caption count as spaces.
    """
    if _SPANNING.search(caption):
        return list(_lex(caption))
    tokens: list[str] = []
    for chunk in caption.split():
        tokens += _lex(chunk)
    return tokens


@lru_cache(maxsize=1 << 16)  # most chunks of captions are frequent words
def _lex(text: str) -> tuple[str, ...]:
    if text.isascii() and text.isalpha():
        lowered = text.lower()
        if lowered not in _SPLIT_WORDS:
            return (lowered,)
    text = text.replace("\u00ad", "") + " "  # soft hyphens are dropped; rules may look ahead at the space after the last word
    tokens: list[str] = []
    start = 0
    while start < len(text):
        if text[start].isspace():
            start += 1
            continue
        longest = max((match for rule in _RULES if (match := rule.match(text, start))), key=re.Match.end)
        piece = longest[longest.lastindex or 0]
        start += len(piece)
        token = _rewrite(piece)
        if token and token not in _PUNCTUATION:
            tokens.append(token)
    return tuple(tokens)


def _rewrite(piece: str) -> str:
    """The Penn Treebank's token for a piece of text; empty where it has none."""
    lowered = piece.lower()
    if lowered in _REWRITTEN:
        return _REWRITTEN[lowered]
    if len(piece) == 1 and not _KNOWN.match(piece):
        return ""
    if _QUOTED.fullmatch(lowered):
        return lowered.translate(_PLAIN_QUOTES)
    return lowered.replace("&amp;", "&").translate(_INSIDE)
