"""Keys of a consortium that plays on one machine."""

import os

from cryptography.hazmat.primitives.asymmetric import ec

from cordon.federation.credentials import enrol, private_identity
from cordon.federation.plan import Site

NORTH = [Site("north", 6, 1.0)]


def test_a_sites_key_outlives_runs(tmp_path):
    for run in ("one", "two"):
        enrol(NORTH, "127.0.0.1", state=tmp_path / "keys", outdir=tmp_path / run)
    first, second = (tmp_path / run / "sites" / "north" / "site.key" for run in ("one", "two"))
    assert private_identity(first) == private_identity(second)
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["north.key"]
    assert (tmp_path / "keys" / "north.key").stat().st_mode & 0o777 == 0o600


def test_two_runs_that_make_a_key_at_once_get_the_same_one(tmp_path, monkeypatch):
    """The other run begins and ends while the first one makes its key."""
    make, begun = ec.generate_private_key, []

    def meanwhile(curve):
        if not begun:
            begun.append(os.getpid())
            enrol(NORTH, None, state=tmp_path / "keys", outdir=tmp_path / "two")
        return make(curve)

    monkeypatch.setattr(ec, "generate_private_key", meanwhile)
    enrol(NORTH, None, state=tmp_path / "keys", outdir=tmp_path / "one")
    first, second = (tmp_path / run / "sites" / "north" / "site.key" for run in ("one", "two"))
    assert private_identity(first) == private_identity(second)
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["north.key"]
