"""The reference of a status' words: `python -m pgweir_operator.api.conditions_reference > docs/conditions.md`.

Pure. Every type, reason and phase has its line here, or the page cannot be written; a test compares the page with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from pgweir_operator.api.conditions import ConditionType, Phase, Reason, SwitchoverPhase

_HEADER: Final = """\
# Conditions and reasons

Written by `python -m pgweir_operator.api.conditions_reference > docs/conditions.md`; do not edit it by hand.

A condition is `True`, `False` or `Unknown`. Its *reason* is one word, for programs; its *message* is a sentence with names and
numbers, for people. Read the message first: it says what to do.

```console
$ kubectl describe pooler/pooler-example-rw
$ kubectl wait --for=condition=Ready pooler/pooler-example-rw --timeout=60s
```
"""

TYPES: Final[Mapping[ConditionType, str]] = {
    ConditionType.READY: "All is as the spec says: every pod is there, of the newest template, ready, and has proved its "
    "configuration.",
    ConditionType.AVAILABLE: "At least one pod is ready: who connects now is served.",
    ConditionType.CONFIGURATION_APPLIED: "Every pod said itself that it runs the wanted configuration, by revision and digest.",
    ConditionType.PAUSED: "No pod holds a server connection, and none will open one.",
    ConditionType.INTEGRATED: "The role, the look-up function and the certificates are in PostgreSQL, proved by a login.",
    ConditionType.TARGET_AVAILABLE: "Every pod has reached PostgreSQL.",
    ConditionType.WITHIN_CONNECTION_BUDGET: "PostgreSQL's `max_connections` has room for all that the pods may open.",
}

STOPPED: Final = "Stops the operator's work"
"""Reasons that no condition owns: Ready has them, and the children stay as they were."""

REASONS: Final[Mapping[str, Mapping[Reason, tuple[str, str]]]] = {
    STOPPED: {
        Reason.INVALID_SPEC: ("The spec contradicts itself; the message has every fault.", "Mend the spec."),
        Reason.INVALID_TEMPLATE: (
            "Kubernetes refuses the Deployment or Service that `template` or `serviceTemplate` makes.",
            "Mend the template; the message has Kubernetes' own words.",
        ),
        Reason.NAME_CONFLICT: ("The Pooler is named as a Service of its cluster.", "Give it another name."),
        Reason.NOT_OWNED: (
            "An object of that name is there already and was not made by this operator. As a reason of Integrated: in"
            " PostgreSQL; or somebody else, another operator perhaps, keeps giving the look-up role another password.",
            "Rename or remove that object, or choose another name. Two operators at one PostgreSQL: one of them with"
            " `pgbouncer.authQuery` and `authQuerySecret`.",
        ),
        Reason.MISSING_SECRET: (
            "A Secret that the spec names, or that the cluster should have, is not there.",
            "Create it; the operator sees it at once.",
        ),
        Reason.INVALID_SECRET: ("A Secret has no such key, or what is in it cannot be used.", "Mend the Secret."),
        Reason.MISSING_SERVICE_ACCOUNT: (
            "`serviceAccountName` names an account that is not there.",
            "Create it; the operator sees it at once.",
        ),
        Reason.TARGET_NOT_FOUND: (
            "The Service of the cluster is not there (`<cluster>-rw`, `-ro` or `-r`).",
            "Is the cluster in this namespace, and is its name right?",
        ),
        Reason.FORBIDDEN: (
            "The operator lacks a right; the message names it.",
            "Install the chart of the operator's version; with `watchNamespaces`, add this namespace.",
        ),
        Reason.RECONCILE_FAILED: ("The API server refused or failed.", "It is tried again; the message has its words."),
    },
    "Ready and Available": {
        Reason.ALL_PODS_READY: ("All is well.", ""),
        Reason.MINIMUM_AVAILABLE: ("At least one pod is ready.", ""),
        Reason.PODS_NOT_READY: (
            "Pods are missing or not ready; the message names them, or has the API server's words where it takes no more"
            " (a quota, a PriorityClass or RuntimeClass that is not there, Pod Security).",
            "`kubectl describe pod` says why: an image, a node without room, a volume. What a template names and is not there"
            " Kubernetes looks for by itself: a Secret or ConfigMap of a volume within two minutes, an image's pull Secret"
            " within five, whatever keeps pods from being made within seventeen.",
        ),
        Reason.ROLLING_OUT: ("New pods replace old ones.", "Wait."),
        Reason.ROLLOUT_STUCK: (
            "The rollout has made no progress for `progressDeadlineSeconds`. Old pods serve on.",
            "`kubectl describe pod` of the newest pod; then mend the image or the template.",
        ),
        Reason.SCALED_TO_ZERO: ("`spec.instances` is 0.", "Raise it."),
        Reason.NO_POD_READY: ("No pod is ready: nobody can connect.", "See *PodsNotReady*."),
    },
    "ConfigurationApplied": {
        Reason.ALL_PODS_PROVED: ("All is well.", ""),
        Reason.APPLYING: ("Some pods do not run it yet.", "Wait a second or two."),
        Reason.REJECTED: (
            "A pod refused the configuration and goes on with the last good one.",
            "The message has the pod's words: mend that setting, HBA line or Secret.",
        ),
        Reason.POD_UNREACHABLE: (
            "A pod that is ready does not answer the operator on its control port (8443).",
            "A NetworkPolicy between the operator's namespace and this one? A node that is gone?",
        ),
        Reason.NOT_RENDERED: ("No configuration could be made; Ready says why.", "See *Ready*."),
        Reason.SETTINGS_LEFT_OUT: (
            "A pod of an older image does not know some settings, so no pod was given them.",
            "Give every pod a newer image, or take the settings out.",
        ),
    },
    "Paused": {
        Reason.NOT_ASKED: ("No pause is asked for.", ""),
        Reason.PAUSING: (
            "Some clients still hold a server; the message names pod, client, server pid and for how long.",
            "Wait, or end those transactions; see [Pause](how-to/switchover.md#pause-by-hand).",
        ),
        Reason.ALL_PODS_PAUSED: ("PostgreSQL may be stopped now.", "Set `paused: false` when it is back."),
        Reason.RESUMING: ("Pods that have not resumed yet.", "Wait a second."),
        Reason.PAUSE_TIMED_OUT: (
            "`pause.timeoutSeconds` is over; what happened then is `pause.onTimeout`'s.",
            "End the transactions that the message names, or set `paused` to false and to true again.",
        ),
    },
    "Integrated": {
        Reason.LOOKUP_SUCCEEDED: ("The look-up role logged in and looked a user up.", ""),
        Reason.LOOKUP_FAILED: (
            "It was made, but its login or its look-up failed.",
            "The message has PostgreSQL's words; often `pg_hba.conf` has no line for the role.",
        ),
        Reason.MANUAL: (
            "You gave `authQuery` and a Secret: the operator changes nothing in PostgreSQL.",
            "Run the SQL of the message, once. This is no fault.",
        ),
        Reason.NO_ADMIN_ACCESS: (
            "There is no superuser's Secret, and `provisioning.exec` is off or did not work.",
            "Create the Secret, allow exec, or run the SQL of the message.",
        ),
        Reason.ADMIN_LOGIN_FAILED: (
            "PostgreSQL refused the administrator's login.",
            "The Secret's password is an old one, or `pg_hba.conf` does not let it in.",
        ),
        Reason.TARGET_UNAVAILABLE: ("PostgreSQL cannot be reached, or is read-only.", "It is tried again."),
        Reason.PROVISIONING: ("Not tried yet.", "Wait."),
        Reason.PROVISIONING_FAILED: ("PostgreSQL refused a statement.", "The message has its words."),
    },
    "TargetAvailable": {
        Reason.REACHABLE: ("Every pod has reached PostgreSQL.", ""),
        Reason.UNREACHABLE: (
            "A pod cannot reach PostgreSQL; the message has its words.",
            "DNS, a NetworkPolicy, or PostgreSQL itself: [Troubleshooting](how-to/troubleshooting.md).",
        ),
        Reason.SWITCHING_OVER: ("A switchover is under way: clients are held.", "Wait; it ends by itself."),
        Reason.UNKNOWN: ("Not every pod has tried yet: a pod connects when a client asks.", ""),
    },
    "WithinConnectionBudget": {
        Reason.WITHIN_BUDGET: ("There is room.", ""),
        Reason.OVER_BUDGET: (
            "All pods together may open more than PostgreSQL takes.",
            "The message has three ways out; see [Sizing](how-to/sizing.md).",
        ),
        Reason.TOO_FEW_DESCRIPTORS: (
            "A pod may have fewer files open than `max_client_conn` and the pool sizes ask for: clients are turned away before.",
            "Raise the limit of the container runtime, or lower `max_client_conn`.",
        ),
        Reason.CAPACITY_UNKNOWN: ("`max_connections` could not be read.", "The message says why."),
    },
}

PHASES: Final[Mapping[Phase, str]] = {
    Phase.PENDING: "it comes up; nobody is served yet",
    Phase.ACTIVE: "clients are served; Ready may still be False, for a rollout, say",
    Phase.PAUSED: "`Paused` is True",
    Phase.INACTIVE: "it waits for something to appear (a Secret, the cluster), or `instances` is 0",
    Phase.FAILED: "a person has to change something; what ran before runs on",
}

SWITCHOVERS: Final[Mapping[SwitchoverPhase, str]] = {
    SwitchoverPhase.HOLDING: "pods hold their clients; some transactions are still ending",
    SwitchoverPhase.HELD: "no pod has a server; the new primary is waited for",
    SwitchoverPhase.ROUTING: "there is a new primary, and pods are being led to it",
    SwitchoverPhase.DONE: "everybody is served by the new primary",
    SwitchoverPhase.TIMED_OUT: "`switchover.timeoutSeconds` is over: clients go on, whatever has become of it",
    SwitchoverPhase.ROLLED_BACK: "the cluster's target went back to where it was: clients go on as before",
}

EVENTS: Final[Mapping[str, str]] = {
    "SwitchoverHeld, SwitchoverDone, SwitchoverTimedOut, SwitchoverRolledBack": "the phases above, as they are reached",
    "SwitchoverNotUnderstood": "the annotation `pgweir.io/switchover` cannot be read",
    "HoldersTerminated": "`pause.onTimeout: Terminate` closed clients; how many, on which pod",
    "CertificateExpires": "a certificate that nobody has renewed expires within five days, or has; once a day",
    "Withdrawn": "what was made in PostgreSQL was taken back",
    "WithdrawalDelayed, WithdrawalAbandoned, WithdrawalIncomplete": "PostgreSQL could not be cleaned up when the last Pooler "
    "went; the note says what is left there",
}


def conditions_reference() -> str:
    owners = {kind.value for kind in ConditionType}
    parts = [_HEADER, _two("## Conditions", "condition", ((kind.value, TYPES[kind]) for kind in ConditionType))]
    parts.append("## Reasons\n")
    for owner, reasons in REASONS.items():
        title = f"### {owner}" if owner not in owners else f"### Reasons of {owner}"
        rows = "".join(f"| `{reason.value}` | {meaning} | {helps} |\n" for reason, (meaning, helps) in reasons.items())
        parts.append(f"{title}\n\n| reason | means | what helps |\n| --- | --- | --- |\n{rows}")
    parts.append(_two("## Phases", "phase", ((phase.value, PHASES[phase]) for phase in Phase)))
    parts.append(
        _two("## Switchover phases", "phase", ((phase.value, SWITCHOVERS[phase]) for phase in SwitchoverPhase))
    )
    parts.append("## Events\n\nBeside these, each change of a condition that matters is an Event with its reason.\n")
    parts.append(
        "| event | means |\n| --- | --- |\n" + "".join(f"| {name} | {text} |\n" for name, text in EVENTS.items())
    )
    return "\n".join(parts)


def _two(title: str, head: str, rows: Iterable[tuple[str, str]]) -> str:
    lines = "".join(f"| `{name}` | {meaning} |\n" for name, meaning in rows)
    return f"{title}\n\n| {head} | means |\n| --- | --- |\n{lines}"


if __name__ == "__main__":
    print(conditions_reference(), end="")
