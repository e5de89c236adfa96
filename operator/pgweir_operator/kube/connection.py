"""How to reach the API server: from inside a cluster, or by a kubeconfig and one of its contexts.

One configuration serves both our own client and kopf's, so that the two can never look at different clusters.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kubernetes.aio import client, config
from kubernetes.aio.config import ConfigException

if TYPE_CHECKING:
    import kopf

__all__ = ["Access", "ConfigException", "connect", "kopf_connection", "own_namespace"]

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Access:
    """Which API server. Nothing given: the pod's own, else the default kubeconfig."""

    kubeconfig: str | None = None
    context: str | None = None

    @property
    def is_in_cluster(self) -> bool:
        return (
            self.kubeconfig is None
            and self.context is None
            and "KUBERNETES_SERVICE_HOST" in os.environ
            and SERVICE_ACCOUNT.exists()
        )


async def connect(access: Access) -> client.Configuration:
    """Raises kubernetes' ConfigException where there is nothing to connect to."""
    configuration = client.Configuration()
    if access.is_in_cluster:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        await config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=access.kubeconfig, context=access.context, client_configuration=configuration
        )
    # Retrying is our own business (api.py): here it would hide for how long.
    configuration.retries = None
    # Every watch of a Secret keeps a connection: with a limit, a few dozen Poolers would leave none for anything else.
    configuration.connection_pool_maxsize = 0
    return configuration


def namespace_of(access: Access) -> str:
    """The namespace that a person means who names none: that of the context, or the pod's own."""
    if access.is_in_cluster:
        return own_namespace() or "default"
    contexts, active = config.list_kube_config_contexts(access.kubeconfig)  # type: ignore[no-untyped-call]
    if access.context is not None:
        active = next((each for each in contexts if each["name"] == access.context), active)
    return str((active.get("context") or {}).get("namespace") or "default")


def own_namespace() -> str | None:
    """The namespace of the pod that we are; None outside a cluster."""
    try:
        return (SERVICE_ACCOUNT / "namespace").read_text().strip() or None
    except OSError:
        return None


async def kopf_connection(access: Access) -> kopf.ConnectionInfo:
    """The same for kopf; called again whenever the API server stops accepting what it had (tokens rotate)."""
    import kopf  # WHY here: the plugin comes by this module, too, and a sixth of what it takes to begin was this

    configuration = await connect(access)
    header = await configuration.get_api_key_with_prefix("BearerToken") or ""
    scheme, _, token = header.rpartition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        ca_data=configuration.ca_cert_data,
        insecure=not configuration.verify_ssl,
        username=configuration.username or None,
        password=configuration.password or None,
        scheme=scheme or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )
