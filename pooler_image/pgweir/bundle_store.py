"""Bundles on disk: the one that Kubernetes mounted, and the last one that was accepted; a crash at any moment leaves a whole one.

The state folder holds one folder per kept bundle, `<revision>-<digest>`, and the link `accepted` to the current one. A bundle
is written aside, synced, loaded from there, and only then linked. Files never change in place, so that whoever reads a
certificate later reads that of the configuration that runs. Called by `executable` (boot) and `admin.control` (pushes).
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pgweir.bundle import INI, Bundle, BundleError, read_bundle
from pgweir.config import Config, ConfigError, load
from pgweir.settings import CATALOGUE_VERSION

log = logging.getLogger(__name__)

MAX_BUNDLE: Final = 4 * 2**20  # bytes; a Secret holds 1 MiB
ACCEPTED: Final = "accepted"
_ASIDE: Final = "incoming-"


class BundleStore:
    """`mounted` is read only; `state_dir` is ours alone."""

    def __init__(self, mounted: Path, state_dir: Path) -> None:
        self._mounted = mounted
        self._state = state_dir

    def best(self) -> tuple[Bundle, Config]:
        """The bundle with the highest revision that loads, now the accepted one. Raises the mounted one's error if none does."""
        self._state.mkdir(parents=True, exist_ok=True)
        candidates: list[Bundle] = []
        trouble: BundleError | ConfigError | None = None
        try:
            candidates.append(read_bundle(_read_folder(self._mounted)))
        except (BundleError, OSError) as error:
            trouble = error if isinstance(error, BundleError) else BundleError(str(self._mounted), str(error))
        accepted = self._accepted()
        if accepted is not None:
            candidates.append(accepted)
        # WHY the mounted one wins a tie: it is what the operator wrote last, whoever told this pod something else.
        for bundle in sorted(candidates, key=lambda bundle: bundle.revision, reverse=True):
            try:
                config = self.stage(bundle)
            except ConfigError as error:
                log.warning("the configuration of revision %d does not load: %s", bundle.revision, error)
                trouble = trouble or error
                continue
            except OSError as error:  # a full disk: what is there already may do
                log.error("the configuration of revision %d cannot be written: %s", bundle.revision, error)
                trouble = trouble or BundleError(str(self._state), str(error))
                continue
            self.try_to_keep(bundle)
            return bundle, config
        assert trouble is not None
        raise trouble

    def load(self, bundle: Bundle) -> Config:
        """The configuration of a bundle that was staged before, read again. Raises ConfigError."""
        return self.stage(bundle)

    def stage(self, bundle: Bundle) -> Config:
        """Write the bundle to a folder of its own, and load it from there. Raises ConfigError; the folder is gone then."""
        folder = self._folder(bundle)
        existed = _holds(folder, bundle)
        if not existed:
            self._write(folder, bundle.files)
        try:
            return load(folder / INI, base_dir=folder, later=bundle.catalogue_version > CATALOGUE_VERSION)
        except ConfigError as error:
            if not existed:
                shutil.rmtree(folder, ignore_errors=True)
            file = Path(error.file).name if Path(error.file).is_relative_to(folder) else error.file
            raise ConfigError(file, error.line, error.key, error.value, error.expected) from None

    def keep(self, bundle: Bundle) -> None:
        """This staged bundle runs: boot from it, and forget all others."""
        folder = self._folder(bundle)
        link = self._state / f"{_ASIDE}link"
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name)
        link.rename(self._state / ACCEPTED)
        _sync_folder(self._state)
        for other in self._state.iterdir():
            if other.name not in (ACCEPTED, folder.name):
                shutil.rmtree(other, ignore_errors=True)

    def try_to_keep(self, bundle: Bundle) -> None:
        """It runs already: a disk that is full is no reason to stop it. The next boot may take an older one."""
        try:
            self.keep(bundle)
        except OSError as error:
            log.error("the configuration of revision %d runs and cannot be kept: %s", bundle.revision, error)

    def discard(self, bundle: Bundle) -> None:
        """This staged bundle was refused after all."""
        shutil.rmtree(self._folder(bundle), ignore_errors=True)

    def _accepted(self) -> Bundle | None:
        link = self._state / ACCEPTED
        if not link.exists():
            return None
        try:
            bundle = read_bundle(_read_folder(link))
            if link.resolve().name != self._folder(bundle).name:
                raise BundleError(ACCEPTED, "its content is not what was written")
        except (BundleError, OSError) as error:
            log.warning("the configuration that was kept is damaged and is ignored: %s", error)
            return None
        return bundle

    def _folder(self, bundle: Bundle) -> Path:
        return self._state / f"{bundle.revision}-{bundle.digest}"

    def _write(self, folder: Path, files: Mapping[str, bytes]) -> None:
        """All or nothing: a folder under its final name is complete."""
        aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=self._state))
        try:
            for name, content in files.items():
                descriptor = os.open(aside / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(descriptor)
            _sync_folder(aside)
            shutil.rmtree(folder, ignore_errors=True)  # damaged, or it would have been used
            aside.rename(folder)
            _sync_folder(self._state)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


def _holds(folder: Path, bundle: Bundle) -> bool:
    """Whether the folder is this very bundle, undamaged."""
    try:
        return folder.is_dir() and _read_folder(folder) == dict(bundle.files)
    except (BundleError, OSError):
        return False


def _read_folder(folder: Path) -> dict[str, bytes]:
    """The files of a bundle. A mounted Secret swaps its files all at once, behind the link `..data`: that is followed once."""
    data = folder / "..data"
    source = data.resolve() if data.exists() else folder.resolve()
    files: dict[str, bytes] = {}
    size = 0
    for path in sorted(source.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        size += path.stat().st_size
        if size > MAX_BUNDLE:
            raise BundleError(path.name, f"the files of this bundle are too large; {MAX_BUNDLE} bytes are allowed")
        files[path.name] = path.read_bytes()
    return files


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
