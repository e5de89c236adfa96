"""The page at `/`: one HTML file with its script and style inside, which asks /api/v1/overview once a second.

The file itself says nothing about anybody, so everybody may have it; what it shows is asked for under the rule of /api/v1. A
browser arrives through a port-forward, which is the host itself, or asks its user for the token and keeps it in the page alone.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).with_name("page.html")


def headers(html: str) -> dict[str, str]:
    """Nothing runs or is loaded but what stands in the file, by its hash; no other page may frame it."""
    script, style = (_hashes(html, tag) for tag in ("script", "style"))
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


def _hashes(html: str, tag: str) -> str:
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
