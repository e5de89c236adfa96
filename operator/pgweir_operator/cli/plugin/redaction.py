"""What leaves a support bundle before it is written: passwords, keys and verifiers, wherever people put them. Pure.

Objects lose the fields that hold secrets; every text loses what looks like one. Secrets' own contents, where they were
readable, are handed in and struck out literally.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any, Final

GONE: Final = "(removed)"
LEAST: Final = 6  # a shorter secret is a word, and striking it out would strike out much else

_QUOTES: Final = r"(?:'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.)*\")"
_QUOTED: Final = rf"(?:{_QUOTES}|[^\s,;&'\"]+)"
_WORDS: Final = (
    r"(?:pass(?:word|wd|phrase)?|bindpasswd|secret(?:[_-]?key)?|token|api[_-]?key|private[_-]?key|pgpassword|pwd)"
)
_PATTERNS: Final = (
    # A PEM block of a key, also where it stands in one line with \n in it.
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), GONE),
    (re.compile(r"SCRAM-SHA-256\$[0-9]+:[A-Za-z0-9+/=]+(?:\$[A-Za-z0-9+/=:]+)?"), GONE),
    (re.compile(r"\bmd5[0-9a-f]{32}\b"), GONE),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), GONE),
    (re.compile(r"((?:postgres(?:ql)?|https?|ldaps?)://[^\s:/@]+:)[^\s@/]+@", re.IGNORECASE), rf"\1{GONE}@"),
    (re.compile(r"(Bearer |Basic )[\w.~+/=-]+", re.IGNORECASE), rf"\1{GONE}"),
    (re.compile(rf"(\bPASSWORD\s+)E?{_QUOTES}", re.IGNORECASE), rf"\1{GONE}"),
    (re.compile(rf"(\b[\w-]*{_WORDS}\\?[\"']?\s*[=:]\s*\\?){_QUOTED}", re.IGNORECASE), rf"\1{GONE}"),
)

# Of an object's metadata: what repeats the whole object, or is of no use to anybody.
_DROPPED: Final = frozenset({"managedFields"})
_REPEATING: Final = "kubectl.kubernetes.io/last-applied-configuration"


class Redaction:
    """`secrets`: contents that must not appear, as bytes."""

    def __init__(self, secrets: Iterable[bytes] = ()) -> None:
        found: set[str] = set()
        for secret in secrets:
            text = secret.decode(errors="replace").strip()
            if len(text) >= LEAST:
                found |= {text, base64.b64encode(secret).decode(), base64.b64encode(text.encode()).decode()}
        self._literal = sorted(found, key=len, reverse=True)

    def text(self, text: str) -> str:
        for secret in self._literal:
            text = text.replace(secret, GONE)
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        return text

    def object(self, value: Any) -> Any:
        """A manifest without what hides secrets in it: environments, arguments' passwords, copies of itself."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return self._items(value)
        if not isinstance(value, dict):
            return value
        if value.get("kind") == "Secret" or {"stringData", "immutable"} & value.keys():
            return {**{key: value[key] for key in ("kind", "apiVersion") if key in value}, "data": GONE}
        if {"name", "value"} <= value.keys():  # a variable of an environment, or anything like one
            return {**{key: self.object(item) for key, item in value.items() if key != "value"}, "value": GONE}
        made = {}
        for key, item in value.items():
            if key in _DROPPED or key == _REPEATING:
                continue
            made[key] = GONE if isinstance(item, str) and _names_a_secret(key) else self.object(item)
        return made

    def _items(self, items: list[Any]) -> list[Any]:
        """An argument that stands behind its option, too: --password, then the word."""
        made, is_secret = [], False
        for item in items:
            made.append(GONE if is_secret and isinstance(item, str) else self.object(item))
            is_secret = isinstance(item, str) and item.startswith("-") and _names_a_secret(item.lstrip("-"))
        return made


_NAME: Final = re.compile(rf"^[\w.-]*{_WORDS}$", re.IGNORECASE)
_NAMES_OF_SECRETS: Final = re.compile(r"^(?:secretName|.*Secret)$")  # they name one and hold nothing


def _names_a_secret(key: str) -> bool:
    return _NAME.match(key.rpartition("/")[2]) is not None and not _NAMES_OF_SECRETS.match(key)
