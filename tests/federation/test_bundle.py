"""Tests of cordon.federation.flower.app_bundle: the bundle is the pinned one, and every other is refused."""

import hashlib
import shutil
import ssl

import httpx
import pytest

from cordon.errors import FederationError
from cordon.federation.credentials import enrol
from cordon.federation.flower import app_bundle, processes, tasks
from cordon.federation.flower.superlink import with_own_bundle
from cordon.federation.gate.start import gated_superlink


def changed_bundle(tmp_path, monkeypatch):
    """A copy of the bundle with code in it, in place of Cordon's."""
    folder = shutil.copytree(app_bundle.BUNDLE_FOLDER, tmp_path / "bundle")
    (folder / "cordon_bundle" / "__init__.py").write_text("import os\nos.system('id')\napp = None\n")
    monkeypatch.setattr(app_bundle, "BUNDLE_FOLDER", folder)
    app_bundle.bundle.cache_clear()


@pytest.fixture(autouse=True)
def nothing_is_kept():
    yield
    app_bundle.bundle.cache_clear()


def test_the_bundle_has_the_pinned_hash():
    content, digest = app_bundle.bundle()
    assert digest == hashlib.sha256(content).hexdigest() == app_bundle.SHA256


def test_a_changed_bundle_is_refused_before_anything_is_sent(tmp_path, monkeypatch):
    changed_bundle(tmp_path, monkeypatch)
    sent = []
    monkeypatch.setattr(tasks, "_control", sent.append)
    with pytest.raises(FederationError, match=r"refused a bundle with the unknown hash .*Install Cordon's"):
        tasks.start_run(None)
    assert sent == []


def test_a_stored_app_and_a_hubs_app_are_refused():
    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.proto.fab_pb2 import Fab
    from starlette.exceptions import HTTPException

    started = []
    start = with_own_bundle(lambda request: started.append(request))
    content, digest = app_bundle.bundle()
    for request in (
        StartRunRequest(fab=Fab(hash_str=digest)),  # of an app that is there already
        StartRunRequest(fab=Fab(hash_str=digest, content=content + b"\0")),
        StartRunRequest(fab=Fab(hash_str=digest, content=content), app_spec="@flwrlabs/demo"),
    ):
        with pytest.raises(HTTPException) as refusal:
            start(request)
        assert refusal.value.status_code == 403
    assert started == []
    start(StartRunRequest(fab=Fab(hash_str=digest, content=content)))
    assert len(started) == 1


@pytest.mark.federation
@pytest.mark.timeout(120)
def test_a_real_superlink_starts_no_run_of_another_bundle(tmp_path):
    from flwr.cli.build import build_fab_from_disk
    from flwr.common.serde import fab_to_proto
    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.supercore.fab import Fab
    from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

    enrol([], "127.0.0.1", state=tmp_path / "keys", outdir=tmp_path)
    folder = shutil.copytree(app_bundle.BUNDLE_FOLDER, tmp_path / "bundle")
    (folder / "cordon_bundle" / "__init__.py").write_text("app = None\n")
    other = build_fab_from_disk(folder)
    protobuf = {"content-type": PROTOBUF_MEDIA_TYPE, "accept": PROTOBUF_MEDIA_TYPE}
    work = tmp_path / "work"
    work.mkdir()
    with gated_superlink(tmp_path / "aggregator", "127.0.0.1", processes.free_port(), work) as link:
        trusted = ssl.create_default_context(cadata=link.certificate.decode())
        answers = []
        for content in (other, app_bundle.bundle()[0]):
            fab = fab_to_proto(Fab(hashlib.sha256(content).hexdigest(), content, {}))
            answers.append(
                httpx.post(
                    f"https://{link.address}/v1/control/start-run", headers=protobuf, verify=trusted,
                    content=StartRunRequest(fab=fab).SerializeToString(),
                )
            )  # fmt: skip
    assert [answer.status_code for answer in answers] == [403, 200]
    assert "refused a bundle with the unknown hash" in answers[0].text
