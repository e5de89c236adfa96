"""What may stand on one line of a text file. Pure; ruled by validation.py and held again by desired/render.py."""

from __future__ import annotations

import re
from typing import Final

# Whatever any reader could take for the end of a line, and the other control characters but the tab.
LINE_BREAKERS: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")


def has_line_breaker(text: str) -> bool:
    return LINE_BREAKERS.search(text) is not None
