"""Each parameter changed at the real API server: what is fixed when a process starts rolls the pods, all else reaches them."""

from __future__ import annotations

from typing import Any

import pytest
from e2e.control_plane.harness import wait
from e2e.control_plane.test_life_of_a_pooler import ready  # noqa: F401 (a fixture)

from pgweir.settings import Kind, ReloadClass, SettingInfo, Support
from pgweir_operator.api.parameters import PARAMETERS, usable_choices

SETTABLE = {name: info for name, info in PARAMETERS.items() if info.support is not Support.REFUSED}
FIXED_AT_START = sorted(name for name, info in SETTABLE.items() if info.reload is ReloadClass.RESTART)
LIVE = sorted(SETTABLE.keys() - set(FIXED_AT_START))

CANDIDATES = {
    Kind.INT: ("3", "4"),
    Kind.TIME: ("2.5", "3.5"),
    Kind.BOOL: ("0", "1"),
    Kind.LIST: ("DateStyle", "TimeZone"),
}
OF_ITS_OWN = {
    "auth_type": ("scram-sha-256", "md5"),
    "client_tls_ciphers": ("HIGH", "default"),
    "server_tls_ciphers": ("HIGH", "default"),
    "client_tls_protocols": ("tlsv1.3", "secure"),
    "server_tls_protocols": ("tlsv1.3", "secure"),
    "client_tls_ecdhcurve": ("prime256v1", "auto"),
}


def values(info: SettingInfo) -> tuple[str, ...]:
    """Two that are taken, so that one of them is another than what runs."""
    choices = usable_choices(info)
    return (
        OF_ITS_OWN.get(info.name) or CANDIDATES.get(info.kind) or (choices[:2] if choices else ("SELECT 1", "SELECT 2"))
    )


def uids(world: Any) -> dict[str, str]:
    pods = world.run(world.kube.items("Pod", world.namespace, labels="pgweir.io/poolerName=pooler"))
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in pods}


def change(world: Any, before: dict[str, str]) -> dict[str, bytes]:
    """Give each parameter of `before` another value than it has; the files as they are when every pod has them."""
    old = world.files()["pgbouncer.ini"]
    for turn in (0, 1):
        chosen = {name: values(SETTABLE[name])[min(turn, len(values(SETTABLE[name])) - 1)] for name in before}
        world.pooler(parameters={**before, **chosen})
        generation = world.get("Pooler", "pooler")["metadata"]["generation"]
        wait(
            lambda generation=generation: world.status().get("observedGeneration") == generation,
            lambda: f"{before}: {world.status()}",
        )
        if world.files()["pgbouncer.ini"] != old:
            break
    files: dict[str, bytes] = world.files()
    assert files["pgbouncer.ini"] != old, f"neither value of {before} changed anything"
    return files


def test_what_can_be_reloaded_reaches_every_pod_and_replaces_none(ready: Any) -> None:  # noqa: F811
    before = uids(ready)
    template = ready.get("Deployment", "pooler")["spec"]["template"]
    assert len(before) == 2
    assert len(LIVE) > 70
    for name in LIVE:
        files = change(ready, {name: ""})
        wait(
            lambda files=files: all(fake.files["pgbouncer.ini"] == files["pgbouncer.ini"] for fake in ready.fakes()),
            lambda name=name: f"{name} did not reach every pod: {ready.status()}",
        )
        assert ready.get("Deployment", "pooler")["spec"]["template"] == template, name
    assert ready.until("ConfigurationApplied", "True")
    assert uids(ready) == before


@pytest.mark.parametrize("name", FIXED_AT_START)
def test_what_is_fixed_at_start_replaces_every_pod(ready: Any, name: str) -> None:  # noqa: F811
    before = uids(ready)
    change(ready, {name: ""})
    wait(
        lambda: len(uids(ready)) == 2 and not set(uids(ready).values()) & set(before.values()),
        lambda: f"{name}: {uids(ready)} after {before}",
    )
    ready.until("ConfigurationApplied", "True")


def test_the_pool_mode_and_the_pause_replace_no_pod_and_the_image_does(ready: Any) -> None:  # noqa: F811
    before = uids(ready)
    ready.pooler(poolMode="session")
    wait(lambda: all(b"pool_mode = session" in fake.files["pgbouncer.ini"] for fake in ready.fakes()), "the mode")
    ready.pooler(poolMode="session", paused=True)
    ready.until("Paused", "True")
    ready.pooler(poolMode="session")
    ready.until("Paused", "False")
    assert uids(ready) == before
    ready.pooler(poolMode="session", template={"metadata": {"labels": {"team": "blue"}}, "spec": {"containers": []}})
    wait(lambda: len(uids(ready)) == 2 and not set(uids(ready).values()) & set(before.values()), "new pods")
