"""Bundles on disk: the highest that loads wins, and a crash at any moment leaves a whole one."""

from __future__ import annotations

import errno
import logging
import shutil
from pathlib import Path

import pytest

from pgweir.bundle import Bundle, BundleError, bundle_manifest, read_bundle
from pgweir.bundle_store import BundleStore
from pgweir.config import ConfigError

GOOD = "[databases]\n* = host=db\n[pgbouncer]\nauth_file = userlist.txt\ndefault_pool_size = {size}\n"


def files(revision: int, *, size: object = 5, paused: bool = False) -> dict[str, bytes]:
    return {
        "pgbouncer.ini": GOOD.format(size=size).encode(),
        "userlist.txt": b'"alice" "secret"\n',
        "bundle.json": bundle_manifest(revision=revision, paused=paused, catalogue_version=1),
    }


def bundle(revision: int, **keywords: object) -> Bundle:
    return read_bundle(files(revision, **keywords))  # type: ignore[arg-type]


def mount(folder: Path, contents: dict[str, bytes]) -> None:
    """As kubelet does it: files behind ..data, which is swapped at once."""
    folder.mkdir(exist_ok=True)
    data = folder / f"..{len(list(folder.iterdir()))}"
    data.mkdir()
    for name, content in contents.items():
        (data / name).write_bytes(content)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..new").symlink_to(data.name)
    (folder / "..new").rename(folder / "..data")


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    mount(tmp_path / "mounted", files(3))
    return BundleStore(mounted=tmp_path / "mounted", state_dir=tmp_path / "state")


def accept(store: BundleStore, wanted: Bundle) -> None:
    store.stage(wanted)
    store.keep(wanted)


def test_the_first_boot_takes_what_is_mounted(store: BundleStore, tmp_path: Path) -> None:
    found, config = store.best()
    assert (found.revision, config.settings.default_pool_size) == (3, 5)
    assert config.userlist == {"alice": "secret"}
    assert (tmp_path / "state" / "accepted" / "pgbouncer.ini").exists()


def test_a_restart_takes_what_was_accepted_since(store: BundleStore) -> None:
    store.best()
    accept(store, bundle(8, size=9, paused=True))
    found, config = store.best()
    assert (found.revision, found.paused, config.settings.default_pool_size) == (8, True, 9)


def test_a_newer_mounted_bundle_wins_and_of_two_equals_the_mounted_one(store: BundleStore, tmp_path: Path) -> None:
    accept_into = bundle(3, size=7)
    (tmp_path / "state").mkdir()
    accept(store, accept_into)
    assert store.best()[1].settings.default_pool_size == 5
    mount(tmp_path / "mounted", files(4, size=11))
    assert store.best()[0].revision == 4


def test_a_mounted_bundle_that_does_not_load_leaves_the_accepted_one(store: BundleStore, tmp_path: Path) -> None:
    store.best()
    mount(tmp_path / "mounted", files(9, size="many"))
    assert store.best()[0].revision == 3


def test_no_bundle_that_loads_is_the_mounted_ones_error(tmp_path: Path) -> None:
    mount(tmp_path / "mounted", files(1, size="many"))
    with pytest.raises(ConfigError, match="default_pool_size = 'many'"):
        BundleStore(mounted=tmp_path / "mounted", state_dir=tmp_path / "state").best()
    with pytest.raises(BundleError, match="missing"):
        BundleStore(mounted=tmp_path / "state", state_dir=tmp_path / "state2").best()


@pytest.mark.parametrize("damage", ["shorter", "gone", "no manifest", "other content"])
def test_a_damaged_accepted_bundle_is_ignored_with_a_warning(
    store: BundleStore, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.best()
    accept(store, bundle(8))
    accepted = (tmp_path / "state" / "accepted").resolve()
    match damage:
        case "shorter":
            (accepted / "pgbouncer.ini").write_bytes(b"[pgbouncer]\n")
        case "gone":
            shutil.rmtree(accepted)
        case "no manifest":
            (accepted / "bundle.json").unlink()
        case "other content":
            (accepted / "userlist.txt").write_bytes(b'"mallory" "x"\n')
    with caplog.at_level(logging.WARNING):
        assert store.best()[0].revision == 3
    assert damage == "gone" or "damaged" in caplog.text


def test_a_crash_while_writing_leaves_the_last_one_and_is_swept_up(store: BundleStore, tmp_path: Path) -> None:
    store.best()
    (tmp_path / "state" / "incoming-x").mkdir()
    (tmp_path / "state" / "incoming-x" / "pgbouncer.ini").write_text("half a fi")
    store.stage(bundle(7, size=6))  # written and never kept: the process died in between
    assert store.best()[0].revision == 3
    assert sorted(path.name[:8] for path in (tmp_path / "state").iterdir()) == [f"3-{bundle(3).digest}"[:8], "accepted"]


def test_a_half_written_folder_under_a_final_name_is_written_again(store: BundleStore, tmp_path: Path) -> None:
    wanted = bundle(7, size=6)
    folder = tmp_path / "state" / f"7-{wanted.digest}"
    folder.mkdir(parents=True)
    (folder / "pgbouncer.ini").write_text("")
    assert store.stage(wanted).settings.default_pool_size == 6


def test_a_refused_bundle_leaves_nothing_behind(store: BundleStore, tmp_path: Path) -> None:
    store.best()
    before = sorted((tmp_path / "state").iterdir())
    with pytest.raises(ConfigError) as caught:
        store.stage(bundle(9, size="many"))
    assert caught.value.file == "pgbouncer.ini"
    assert str(tmp_path) not in str(caught.value)
    assert sorted((tmp_path / "state").iterdir()) == before


def test_files_of_a_bundle_are_for_nobody_else(store: BundleStore, tmp_path: Path) -> None:
    store.best()
    for path in (tmp_path / "state" / "accepted").iterdir():
        assert path.stat().st_mode & 0o077 == 0


def full_disk(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_on_a_full_disk_the_last_good_state_boots(
    store: BundleStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.best()
    mount(tmp_path / "mounted", files(4, size=11))
    monkeypatch.setattr("os.fsync", full_disk)
    found, config = store.best()
    assert (found.revision, config.settings.default_pool_size) == (3, 5)
    with pytest.raises(OSError, match="No space"):
        store.stage(bundle(9))
    monkeypatch.undo()
    assert store.best()[0].revision == 4
    assert {path.name for path in (tmp_path / "state").iterdir()} == {
        "accepted",
        store._folder(bundle(4, size=11)).name,
    }


def test_what_cannot_be_kept_on_a_full_disk_runs_all_the_same(
    store: BundleStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store.best()
    store.stage(bundle(8))
    monkeypatch.setattr(Path, "symlink_to", full_disk)
    store.try_to_keep(bundle(8))
    assert "runs and cannot be kept" in caplog.text
    monkeypatch.undo()
    assert store.best()[0].revision == 3


def test_a_first_boot_on_a_full_disk_says_why(store: BundleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(BundleError, match="No space left"):
        store.best()
