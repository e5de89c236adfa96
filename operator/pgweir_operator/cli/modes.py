"""The words that options of `pgweir` take, apart from the code that heeds them: `--help` imports nothing else."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """What one transaction of `pgweir bench` is."""

    SIMPLE = "simple"
    EXTENDED = "extended"
    PREPARED = "prepared"
    TRANSACTION = "transaction"
