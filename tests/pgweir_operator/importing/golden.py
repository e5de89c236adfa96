"""The golden files of imports: what each example configuration becomes, for a person to review.

`python tests/pgweir_operator/importing/golden.py` writes them anew; test_importing.py compares.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from pgweir_operator.importing import Imported, import_configuration

DATA = Path(__file__).parent / "data"
EXAMPLES = sorted(path.name for path in DATA.iterdir() if path.suffix in (".conf", ".ini"))


def imported(example: str) -> Imported:
    return import_configuration((DATA / example).read_text(), name="example")


def files(example: str) -> dict[str, str]:
    answer = imported(example)
    return {
        f"{example}.yaml": yaml.safe_dump(dict(answer.manifest), sort_keys=False),
        f"{example}.txt": "".join(f"{line}\n" for line in answer.lines),
    }


if __name__ == "__main__":
    for example in EXAMPLES:
        for name, text in files(example).items():
            (DATA / name).write_text(text)
