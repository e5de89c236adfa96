"""`python -m pgweir_operator.uninstall`: after the operator is gone, nothing waits for it, and what remains is printed.

The chart runs it as a hook once everything else of the release was deleted. A Pooler that something was provisioned for
has a finalizer; without an operator nobody would ever take it away, and the Pooler, and its namespace, could not be
deleted. Poolers and their pods are left as they are: they go on serving. An operator that is installed again puts the
finalizers back. It touches nothing while an operator still leads.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Final

import typer

from pgweir_operator.api import names
from pgweir_operator.kube import Access, ApiError, ConflictError, Kube, connect
from pgweir_operator.kube.api import Object
from pgweir_operator.main import LEASE

LOOK: Final = 0.5
REMAINS: Final = """\
What remains:
- the CustomResourceDefinition poolers.pgweir.io, and with it every Pooler above;
- their Deployments, Services and Secrets: the pods go on serving, nobody changes them any more;
- in PostgreSQL, for Poolers marked with *, the role that looks users up, and the schema pgweir.
To take all of it away:
  kubectl delete poolers.pgweir.io --all --all-namespaces && kubectl delete crd poolers.pgweir.io
  and in each target: DROP SCHEMA pgweir CASCADE; then, in every database, DROP OWNED BY the role; then DROP ROLE."""


def uninstall(
    namespace: Annotated[
        list[str] | None, typer.Option(help="Where Poolers were served; repeat. Default: all.")
    ] = None,
    lease_namespace: Annotated[str, typer.Option(help="Namespace of the operator's Lease.")] = "default",
    kubeconfig: Annotated[str | None, typer.Option(help="Kubeconfig file, outside a cluster.")] = None,
    patience: Annotated[float, typer.Option(help="Seconds to wait for the operator to be gone.")] = 60.0,
) -> None:
    """Release the finalizers that the operator left, and say what remains."""
    raise SystemExit(asyncio.run(_uninstall(Access(kubeconfig=kubeconfig), namespace or [], lease_namespace, patience)))


async def _uninstall(access: Access, namespaces: Sequence[str], lease_namespace: str, patience: float) -> int:
    async with Kube(await connect(access)) as kube:
        try:
            if holder := await still_leading(kube, lease_namespace, patience=patience):
                _say(
                    f"{holder} still holds Lease {lease_namespace}/{LEASE} and looks after the Poolers: nothing was touched."
                )
                return 0
            await release(kube, namespaces, _say)
        except ApiError as error:
            _say(f"The API server said no: {error.message}")
            return 1
    return 0


async def still_leading(
    kube: Kube, namespace: str, *, patience: float, clock: Callable[[], float] = time.monotonic
) -> str | None:
    """Who leads after all this time; None as soon as nobody does, or whoever did has stopped to renew."""
    until, seen, since = clock() + patience, "", clock()
    while True:
        lease = await kube.get("Lease", namespace, LEASE)
        spec = (lease or {}).get("spec") or {}
        if lease is None or not spec.get("holderIdentity"):
            return None
        if lease["metadata"]["resourceVersion"] != seen:
            seen, since = lease["metadata"]["resourceVersion"], clock()
        if clock() - since > float(spec.get("leaseDurationSeconds") or 15.0):
            return None
        if clock() > until:
            return str(spec["holderIdentity"])
        await asyncio.sleep(LOOK)


async def release(kube: Kube, namespaces: Sequence[str], say: Callable[[str], None]) -> None:
    poolers = [pooler for namespace in namespaces or [""] for pooler in await kube.items(names.KIND, namespace)]
    if not poolers:
        say("There is no Pooler. What remains is the CustomResourceDefinition poolers.pgweir.io.")
        return
    for pooler in poolers:
        metadata = pooler["metadata"]
        provisioned = await _let_go(kube, pooler)
        status = pooler.get("status") or {}
        say(
            f"{'*' if provisioned else ' '} Pooler {metadata['namespace']}/{metadata['name']}: "
            f"{status.get('readyInstances', 0)} pods serve on"
        )
    say(REMAINS)


async def _let_go(kube: Kube, pooler: Object) -> bool:
    """Whether there was something to let go of."""
    current: Object | None = pooler
    while current is not None:
        finalizers = current["metadata"].get("finalizers") or []
        if names.FINALIZER not in finalizers:
            return current is not pooler
        try:
            left = [name for name in finalizers if name != names.FINALIZER]
            await kube.set_finalizers({**current, "kind": names.KIND}, left)
        except ConflictError:
            current = await kube.get(names.KIND, pooler["metadata"]["namespace"], pooler["metadata"]["name"])
            continue
        return True
    return True


def _say(sentence: str) -> None:
    sys.stdout.write(sentence + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    typer.run(uninstall)
