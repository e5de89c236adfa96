"""What each version of the catalogue added: `python tests/pgweir/settings/versions.py > tests/pgweir/settings/versions.json`."""

from __future__ import annotations

import json
import sys

from pgweir.settings import DATABASE_SETTINGS, PEER_SETTINGS, SETTINGS, USER_SETTINGS


def versions() -> dict[str, list[str]]:
    """By version: the settings, and the words of settings, that came with it."""
    added: dict[str, list[str]] = {}
    sections = {"pgbouncer": SETTINGS, "databases": DATABASE_SETTINGS, "users": USER_SETTINGS, "peers": PEER_SETTINGS}
    for section, catalogue in sections.items():
        for name, info in catalogue.items():
            added.setdefault(str(info.since), []).append(f"{section}.{name}")
            for word in info.choices:
                if word not in info.refused_choices:
                    since = max(info.since, dict(info.words_since).get(word, 1))
                    added.setdefault(str(since), []).append(f"{section}.{name} = {word}")
    return {version: sorted(names) for version, names in sorted(added.items())}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(versions(), indent=1) + "\n")
