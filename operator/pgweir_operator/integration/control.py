"""The control plane's own certificates: one CA per Pooler, a certificate for its pods, one for the operator.

`renewed` takes what the Secrets hold and the time, and answers what they should hold. A change of CA takes three steps,
because a pod sees a changed Secret only after the kubelet's delay:

1. the next CA is made and trusted beside the current one, which goes on signing;
2. a day later the next CA signs, and the former stays trusted;
3. the former leaves the bundle when it expires.

Touches nothing; reconcile writes the Secrets.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pgweir_operator.api.names import CONTROL_CLIENT_NAME, CONTROL_DNS_NAME
from pgweir_operator.integration.certificates import (
    DAY,
    KeyPair,
    authority,
    client_certificate,
    common_name,
    is_due,
    is_issued_by,
    is_pair,
    joined,
    names_of,
    server_certificate,
)

# How long a new CA is trusted before it signs. A mounted Secret follows within minutes; a node may be away for hours.
OVERLAP = DAY


@dataclass(frozen=True, slots=True)
class ControlCertificates:
    """What the Secrets `<pooler>-control` (trusted, pod) and `<pooler>-control-ca` (all) hold."""

    trusted: bytes
    signing: KeyPair = field(repr=False)
    pod: KeyPair = field(repr=False)
    operator: KeyPair = field(repr=False)
    upcoming: KeyPair | None = field(default=None, repr=False)
    upcoming_since: float = 0.0


def renewed(current: ControlCertificates | None, *, pooler: str, now: float) -> ControlCertificates:
    """The certificates as they should be; the very same object when nothing is due."""
    if current is None or not is_pair(current.signing) or _is_expired(current.signing, now):
        signing = authority(f"pgweir control CA of {pooler}", now=now)
        return _with_leaves(signing, trusted=signing.certificate, now=now)
    if current.upcoming is not None and now - current.upcoming_since >= OVERLAP:
        trusted = joined([current.upcoming.certificate, current.trusted], now=now)
        return _with_leaves(current.upcoming, trusted=trusted, now=now)
    result = current
    if current.upcoming is None and is_due(current.signing.certificate, now=now):
        upcoming = authority(f"pgweir control CA of {pooler}", now=now)
        trusted = joined([current.trusted, upcoming.certificate], now=now)
        result = replace(result, trusted=trusted, upcoming=upcoming, upcoming_since=now)
    if not _serves(current.pod, current.signing, now) or names_of(current.pod.certificate) != {CONTROL_DNS_NAME}:
        result = replace(result, pod=server_certificate(current.signing, [CONTROL_DNS_NAME], now=now))
    if (
        not _serves(current.operator, current.signing, now)
        or common_name(current.operator.certificate) != CONTROL_CLIENT_NAME
    ):
        result = replace(result, operator=client_certificate(current.signing, CONTROL_CLIENT_NAME, now=now))
    trusted = joined([result.trusted], now=now)
    if trusted != result.trusted:
        result = replace(result, trusted=trusted)
    return result


def _with_leaves(signing: KeyPair, *, trusted: bytes, now: float) -> ControlCertificates:
    return ControlCertificates(
        trusted=trusted,
        signing=signing,
        pod=server_certificate(signing, [CONTROL_DNS_NAME], now=now),
        operator=client_certificate(signing, CONTROL_CLIENT_NAME, now=now),
    )


def _serves(leaf: KeyPair, signing: KeyPair, now: float) -> bool:
    return (
        is_pair(leaf) and not is_due(leaf.certificate, now=now) and is_issued_by(leaf.certificate, signing.certificate)
    )


def _is_expired(pair: KeyPair, now: float) -> bool:
    return not joined([pair.certificate], now=now)
