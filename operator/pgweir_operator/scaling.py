"""Scaling under a connection budget: no pod is added before those that are there have made room for it.

Pure. Called by reconcile, which holds the Deployment back until nobody is named here.
"""

from __future__ import annotations

from collections.abc import Mapping

from pgweir.bundle import bundle_digest
from pgweir_operator.api import budget
from pgweir_operator.api.observed import Observed, PodAnswer, PodReport
from pgweir_operator.api.pooler import Pooler
from pgweir_operator.desired import Desired


def making_room(pooler: Pooler, observed: Observed, desired: Desired, answers: Mapping[str, PodAnswer]) -> list[str]:
    """Who must come down to a smaller share before the Deployment may grow: every shrink precedes any growth.

    A pod has come down when it runs the configuration with that share and has no more servers than that. One that has
    no address yet will start with it.
    """
    deployment, share = observed.deployment, desired.share
    if share is None or deployment is None or not 0 < deployment.wanted_replicas < pooler.spec.instances:
        return []
    digest = bundle_digest(desired.bundle_files)
    found = []
    for pod in observed.pods:
        if not pod.ip or pod.ended:
            continue
        answer = answers.get(pod.name)
        knows = isinstance(answer, PodReport) and (answer.revision, answer.digest) == (desired.revision, digest)
        found.append((pod.name, answer.servers if isinstance(answer, PodReport) and knows else None))
    return budget.over_share(found, share)
