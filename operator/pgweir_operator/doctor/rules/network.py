"""Names, Services, NetworkPolicies, ports: whether anybody gets as far as the pooler, and the pooler to PostgreSQL."""

from __future__ import annotations

from pgweir_operator.doctor.facts import Facts, Policy, Port
from pgweir_operator.doctor.findings import Class, Finding


def service_missing(facts: Facts) -> Finding | None:
    found = facts.kubernetes
    if found is None or found.service:
        return None
    return Finding(
        "service-missing",
        Class.NETWORK,
        f"Pooler {found.pooler} has no Service: its name leads nowhere",
        (f"there is no Service {found.pooler!r} in namespace {found.namespace!r}",),
        "The operator makes it: see whether the operator runs, and what kubectl pgweir status says",
    )


def no_endpoints(facts: Facts) -> Finding | None:
    found = facts.kubernetes
    if found is None or not found.service or found.endpoints_ready:
        return None
    pods = tuple(
        f"pod {pod.name}: {'ready' if pod.ready else 'not ready'}, {pod.phase}{f', {pod.message}' if pod.message else ''}"
        for pod in found.pods
    )
    if found.replicas == 0:
        fix = "The Pooler is scaled to 0: set spec.instances"
    elif not found.pods:
        fix = "No pod was made: kubectl describe deployment says why (quota, image, service account)"
    elif not found.selector_matches:
        fix = (
            "The Service's selector does not match the pods' labels: undo what was changed, or delete the Service, and the "
            "operator makes it anew"
        )
    elif any(pod.ready for pod in found.pods):
        fix = (
            "Pods are ready and are not listed: somebody took the endpoints away, or the cluster's endpoint controller does "
            "not run"
        )
    else:
        fix = "Make the pods ready: kubectl describe pod and kubectl pgweir logs say what keeps them"
    unready = (f"not ready: {', '.join(found.endpoints_unready)}",) if found.endpoints_unready else ()
    return Finding(
        "no-endpoints",
        Class.NETWORK,
        f"Service {found.service} has no ready endpoints: nobody can connect",
        (f"ready endpoints of Service {found.service}: none", *unready, *(pods or ("pods: none",))),
        fix,
    )


def pods_not_ready(facts: Facts) -> Finding | None:
    """Some of them; that none is ready is no_endpoints."""
    found = facts.kubernetes
    if found is None or not found.endpoints_ready:
        return None
    down = [pod for pod in found.pods if not pod.ready]
    if not down:
        return None
    return Finding(
        "pods-not-ready",
        Class.NETWORK,
        f"{len(down)} of {len(found.pods)} pods take no clients",
        tuple(f"pod {pod.name}: {pod.phase}{f', {pod.message}' if pod.message else ''}" for pod in down),
        "kubectl describe pod says what keeps it from being ready",
    )


def policy_denies(facts: Facts) -> Finding | None:
    """A NetworkPolicy is whether or not the cluster's network obeys it: what it says is read, not tried."""
    found = facts.kubernetes
    if found is None or not found.policies:
        return None
    says = {
        "no client comes in to the pooler's port": [policy.clients for policy in found.policies],
        "the pods may not reach PostgreSQL's port": [policy.target for policy in found.policies],
        "the pods may not ask DNS": [policy.dns for policy in found.policies],
    }
    missing = [sentence for sentence, words in says.items() if _denied(words)]
    if not missing:
        return None
    return Finding(
        "policy-denies",
        Class.NETWORK,
        f"NetworkPolicies deny what the pooler needs: {'; '.join(missing)}",
        tuple(f"NetworkPolicy {policy.name} selects the pods: {_words(policy)}" for policy in found.policies),
        "Add a NetworkPolicy that allows it (policies add up): spec.networkPolicy.enabled makes one; or delete "
        "the one that denies",
    )


def _denied(says: list[bool | None]) -> bool:
    """Policies add up: as soon as one is about a direction, some must allow it."""
    concerned = [word for word in says if word is not None]
    return bool(concerned) and not any(concerned)


def _words(policy: Policy) -> str:
    words = {True: "allowed", False: "not allowed", None: "not its business"}
    return f"clients {words[policy.clients]}, PostgreSQL {words[policy.target]}, DNS {words[policy.dns]}"


def name_unknown(facts: Facts) -> Finding | None:
    bad = [name for name in facts.names if name.error]
    if not bad:
        return None
    words = {"target": "PostgreSQL's host", "service": "the Service's name", "pooler": "the pooler's host"}
    return Finding(
        "dns",
        Class.NETWORK,
        "; ".join(f"{words.get(name.role, name.role)} {name.name!r} does not resolve" for name in bad),
        tuple(f"look-up of {name.name}: {name.error}" for name in bad),
        "Correct the host name, or mend DNS (its pods, the Service kube-dns, a NetworkPolicy that keeps port 53 shut)",
    )


def name_elsewhere(facts: Facts) -> Finding | None:
    bad = [
        name for name in facts.names if name.expected and name.addresses and not set(name.addresses) <= name.expected
    ]
    if not bad:
        return None
    return Finding(
        "dns-elsewhere",
        Class.NETWORK,
        f"the name {bad[0].name!r} leads to another place than its Service",
        tuple(f"{name.name}: {', '.join(name.addresses)}; expected {', '.join(sorted(name.expected))}" for name in bad),
        "Something answers for that name beside the cluster's DNS: a search domain, a stale cache, an entry in a hosts file",
    )


def backlog(facts: Facts) -> Finding | None:
    """The port is there, the kernel takes connections, and the pooler does not fetch them."""
    queue = facts.queue
    if queue is None or not queue.queued:
        return None
    limit = facts.tables.setting("listen_backlog") if facts.tables is not None else ""
    full = limit.isdigit() and queue.queued >= int(limit)
    stalled = any(port.kind == "timeout" for port in facts.ports if port.role in ("pooler", "pod"))
    waited = facts.login is not None and facts.login.kind == "timeout" and facts.tables is None
    if not (queue.overflows or full or stalled or waited):
        return None
    return Finding(
        "limit-backlog",
        Class.POOL,
        "connections pile up in front of the pooler: its backlog binds (listen_backlog)",
        (
            f"{queue.queued} connections were accepted by the kernel and not by the pooler",
            f"listen_backlog: {limit or 'not known, the pooler does not answer'}; overflows meanwhile: {queue.overflows}",
        ),
        "The process does not come round to accepting: it stands still, or has too little CPU; more instances, more CPU, "
        "and for storms of logins a larger listen_backlog (with the kernel's somaxconn)",
    )


def port_closed(facts: Facts) -> Finding | None:
    bad = [port for port in facts.ports if port.error and port.role in ("pooler", "service", "pod")]
    if not facts.is_shut("pooler"):
        bad = [port for port in bad if port.role != "pooler"]
    if not bad or backlog(facts) is not None:
        return None
    kinds = {port.kind for port in bad}
    fix = (
        "Nobody answers: a NetworkPolicy, a firewall or a route drops the packets, or the host is gone"
        if "timeout" in kinds
        else "The host answers and nothing listens there: see whether the pooler runs, and its listen_addr and listen_port"
    )
    policies = facts.kubernetes.policies if facts.kubernetes is not None and facts.kubernetes.policies else ()
    return Finding(
        "tcp-timeout" if "timeout" in kinds else "tcp-refused",
        Class.NETWORK,
        f"the pooler's port takes no connection: {', '.join(map(str, bad))}",
        (
            *(_tried(port, facts.pod_at(port.address)) for port in bad),
            *(f"NetworkPolicy {policy.name} selects the pods" for policy in policies),
        ),
        fix,
    )


def target_closed(facts: Facts) -> Finding | None:
    bad = [port for port in facts.ports if port.error and port.role == "target"]
    if not facts.is_shut("target"):
        return None
    return Finding(
        "target-unreachable",
        Class.POSTGRESQL,
        f"PostgreSQL's port takes no connection from where the pooler is: {', '.join(map(str, bad))}",
        tuple(map(_tried, bad)),
        "See whether PostgreSQL runs and listens there (listen_addresses), and what lies between: NetworkPolicy, firewall, route",
    )


def _tried(port: Port, pod: str = "") -> str:
    return f"connect to {port}{f' (pod {pod})' if pod else ''}: {port.error}"


RULES = (
    service_missing,
    no_endpoints,
    pods_not_ready,
    name_unknown,
    name_elsewhere,
    policy_denies,
    port_closed,
    target_closed,
)
