"""Tests of cordon.ledger.pseudonyms."""

import hashlib
import hmac
from concurrent.futures import ThreadPoolExecutor

import pytest

from cordon.errors import UserError
from cordon.ledger.pseudonyms import Salt, read_salt


def test_a_pseudonym_is_the_head_of_an_hmac():
    key = bytes(range(32))
    expected = hmac.new(key, b"patient\0p1", hashlib.sha256).hexdigest()[:16]
    assert Salt(key).patient("p1") == expected  # whatever its site is called
    assert Salt(key).sample("north", "p1") != expected
    assert Salt(key).patient("p2") != expected
    assert "key" not in repr(Salt(key))


def test_the_salt_is_made_once_for_its_owner_alone(tmp_path):
    state = tmp_path / "state"
    with ThreadPoolExecutor(8) as pool:
        salts = set(pool.map(lambda _: read_salt(state), range(16)))
    assert len(salts) == 1
    (file,) = state.iterdir()
    assert file.name == "pseudonym.salt"
    assert file.stat().st_mode & 0o777 == 0o600
    assert bytes.fromhex(file.read_text()) == salts.pop().key
    assert read_salt(tmp_path / "other") != read_salt(state)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"ab" * 31, b"zz" * 32])
def test_what_is_no_salt_is_refused_and_left_alone(tmp_path, content):
    (tmp_path / "pseudonym.salt").write_bytes(content)
    with pytest.raises(UserError, match=r"pseudonym\.salt: "):
        read_salt(tmp_path)
    assert (tmp_path / "pseudonym.salt").read_bytes() == content


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(UserError, match="Check --state_dir"):
        read_salt(tmp_path / "state")
