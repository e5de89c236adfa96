import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgweir.bundle import INI, MANIFEST, BundleError, bundle_digest, bundle_manifest, read_bundle


def files(*, revision: int = 1, paused: bool = False, **more: bytes) -> dict[str, bytes]:
    return {
        INI: b"[pgbouncer]\n",
        MANIFEST: bundle_manifest(revision=revision, paused=paused, catalogue_version=1),
        **more,
    }


def test_a_bundle_knows_its_revision_its_pause_and_its_files():
    bundle = read_bundle(files(revision=7, paused=True))
    assert (bundle.revision, bundle.paused, bundle.catalogue_version) == (7, True, 1)
    assert bundle.files[INI] == b"[pgbouncer]\n"
    assert bundle.digest == bundle_digest(bundle.files)


def test_the_digest_is_over_names_lengths_and_bytes_in_the_order_of_names():
    paused = b'{"paused": false}'
    text = b"bundle.json\0%d\0%spgbouncer.ini\x0012\0[pgbouncer]\n" % (len(paused), paused)
    assert bundle_digest(files()) == hashlib.sha256(text).hexdigest()


def test_the_digest_sees_a_pause_and_not_a_revision():
    assert bundle_digest(files(revision=1)) == bundle_digest(files(revision=2))
    assert bundle_digest(files(paused=True)) != bundle_digest(files(paused=False))


def test_the_digest_sees_each_byte_and_each_name():
    seen = {
        bundle_digest(files()),
        bundle_digest(files(a=b"")),
        bundle_digest(files(b=b"")),
        bundle_digest(files(a=b"x")),
        bundle_digest(files(a=b"1\0b\x001\0", b=b"")),
    }
    assert len(seen) == 5


def test_the_spelling_of_the_manifest_does_not_count():
    spelled = {**files(), MANIFEST: b' {"paused":false, "catalogueVersion":1,"revision":1}'}
    assert bundle_digest(spelled) == bundle_digest(files())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({INI: None}, "pgbouncer.ini: this file is missing"),
        ({MANIFEST: None}, "bundle.json: this file is missing"),
        ({MANIFEST: b"{"}, "bundle.json: this is not JSON"),
        ({MANIFEST: b"\xff"}, "bundle.json: this is not JSON"),
        ({MANIFEST: b"[]"}, "write a JSON object"),
        ({MANIFEST: b'{"paused": true}'}, "revision is missing; write a whole number of at least 1"),
        ({MANIFEST: b'{"revision": 0, "paused": true}'}, "revision is 0"),
        ({MANIFEST: b'{"revision": true, "paused": true}'}, "revision is True"),
        ({MANIFEST: b'{"revision": 1, "paused": "no"}'}, "paused is 'no'; write true or false"),
        ({MANIFEST: b'{"revision": 1, "paused": true}'}, "catalogueVersion is missing"),
        ({"../up": b""}, "no name for a file of a bundle"),
        ({".hidden": b""}, "no name for a file of a bundle"),
        ({"a/b": b""}, "no name for a file of a bundle"),
        ({"": b""}, "no name for a file of a bundle"),
    ],
)
def test_what_is_no_bundle_is_told_with_the_file_and_the_fix(change: dict[str, bytes | None], problem: str):
    wanted = {name: content for name, content in {**files(), **change}.items() if content is not None}
    with pytest.raises(BundleError, match=problem):
        read_bundle(wanted)


def test_the_files_of_a_bundle_are_not_printed():
    assert "hunter2" not in repr(read_bundle(files(secret=b"hunter2")))


@given(st.binary())
def test_noise_gets_a_bundle_error_and_nothing_else(content: bytes):
    with pytest.raises(BundleError):
        read_bundle({INI: b"", MANIFEST: content})
