"""`kubectl pgweir` against a real API server: status, pause and resume, the support bundle, and the rights that it needs.

What looks into pods needs a kubelet: e2e/scenarios/test_plugin.py.
"""

from __future__ import annotations

import base64
import tarfile

import pytest
import yaml

from pgweir_operator.cli.plugin.bundle import secret_contents


@pytest.fixture
def ready(world):
    """A Pooler with two pods, ready, under an operator."""
    world.has_cluster()
    world.start_operator()
    world.pooler()
    world.until("Ready", "True")
    return world


def test_status_has_what_the_pods_said(ready, plugin):
    code, said = plugin("status")
    assert code == 0, said
    row = said.splitlines()[1].split()
    assert row == ["pooler", "active", "2/2", str(ready.revision()), "6", "0", "4"], said
    code, said = plugin("status", "pooler")
    assert code == 0
    assert all(fake.name in said for fake in ready.fakes())
    assert "WithinConnectionBudget" in said


def test_pause_waits_for_the_holders_names_them_at_its_deadline_and_goes_on(ready, plugin):
    fake = ready.fakes()[0]
    fake.hold(applicationName="month_end", serverPid=4711)
    code, said = plugin("pause", "pooler", "--wait", "--timeout=3")
    assert code == 4, said
    assert "month_end" in said
    assert "4711" in said
    assert "kubectl pgweir resume pooler" in said
    fake.let_go()
    code, said = plugin("pause", "pooler", "--wait", "--timeout=30")
    assert code == 0, said
    assert all(each.state == "paused" for each in ready.fakes())
    assert "2/2" in plugin("status")[1].splitlines()[1].split()
    code, said = plugin("resume", "pooler", "--wait", "--timeout=30")
    assert code == 0, said
    assert all(each.state == "active" for each in ready.fakes())


def test_the_support_bundle_has_no_secret_of_the_namespace_in_it(ready, plugin, tmp_path):
    target = tmp_path / "bundle.tar.gz"
    code, said = plugin("support-bundle", "--file", str(target))
    assert code == 0, said
    with tarfile.open(target) as archive:
        files = {member.name: archive.extractfile(member).read().decode() for member in archive.getmembers()}
    together = "\n".join(files.values())
    secrets = ready.run(ready.kube.items("Secret", ready.namespace))
    contents = {part for secret in secrets for part in secret_contents(secret)}
    assert len(contents) > 3
    for content in contents:
        if len(content) > 8:  # the superuser's password here is the word itself
            assert content.decode() not in together
            assert base64.b64encode(content).decode() not in together
    assert "PRIVATE KEY" not in together
    named = {name.partition("/")[2] for name in files}
    folder = f"{ready.namespace}/pooler"
    assert {f"{folder}/pooler.yaml", f"{folder}/deployment.yaml", f"{folder}/service.yaml", "missing.txt"} <= named
    events = yaml.safe_load(next(text for name, text in files.items() if name.endswith("events.yaml")))
    assert isinstance(events, list)


def test_looking_needs_the_right_to_look_and_nothing_more(ready, plugin, looker):
    code, said = plugin("status", who=looker)
    assert code == 0, said
    for words in (("pause", "pooler"), ("clients", "pooler"), ("logs", "pooler")):
        code, said = plugin(*words, who=looker)
        assert code == 3, said
        assert "forbidden" in said
    assert not ready.get("Pooler", "pooler")["spec"].get("paused")


def test_what_is_not_there_is_said_in_words(world, plugin):
    code, said = plugin("status")
    assert (code, said) == (0, f"no Poolers in namespace {world.namespace}\n")
    code, said = plugin("pause", "nothing")
    assert code == 1
    assert said.startswith("there is no Pooler 'nothing'")
    code, said = plugin("switchover", "shop")
    assert code == 1
    assert "kubectl pgweir pause" in said
