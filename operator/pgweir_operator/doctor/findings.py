"""What the doctor says: a finding has a class (and so an exit code), what is wrong, the evidence and the way out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Class(Enum):
    """Where the fault is; the exit code of the first finding in this order is the doctor's."""

    NETWORK = (10, "a name, a Service, a NetworkPolicy or a port is in the way")
    TLS = (11, "TLS fails, or a certificate is about to")
    LOGIN = (12, "a login is refused; the finding says by which layer")
    SLOW = (13, "it works and is slow; the finding names the stage")
    POOL = (14, "clients wait in the pooler, or are held: a limit, a pause, transactions that are left open")
    POSTGRESQL = (15, "PostgreSQL is full, away or hoarded by idle transactions")
    OPERATOR = (16, "the operator reports it, or pods do not run what it wants")
    ENDED = (17, "connections or queries end before their time")

    def __init__(self, exit_code: int, meaning: str) -> None:
        self.exit_code = exit_code
        self.meaning = meaning

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """`code` never changes once released: scripts know it."""

    code: str
    kind: Class
    what: str
    evidence: tuple[str, ...]
    fix: str

    def document(self) -> dict[str, object]:
        return {
            "code": self.code,
            "class": self.kind.word,
            "exit_code": self.kind.exit_code,
            "what": self.what,
            "evidence": list(self.evidence),
            "fix": self.fix,
        }
