"""A model folder whose weights are not the ones that were stated is refused in one sentence."""

from __future__ import annotations

import hashlib

import pytest

from noisegate_ros.errors import InputError, ModelError
from noisegate_ros.wam.digest import WEIGHTS, check_weights, weights_sha256

BYTES = bytes(range(256)) * 9000  # more than one block
HASH = hashlib.sha256(BYTES).hexdigest()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / WEIGHTS).write_bytes(BYTES)
    return tmp_path


def test_the_hash_is_that_of_sha256sum(folder):
    assert weights_sha256(folder) == HASH


@pytest.mark.parametrize("stated", ["", HASH, HASH.upper()])
def test_what_was_stated_passes(folder, stated):
    check_weights(folder, stated)


def test_one_changed_bit_is_refused(folder):
    changed = bytearray(BYTES)
    changed[-1] ^= 1
    (folder / WEIGHTS).write_bytes(changed)
    with pytest.raises(ModelError, match=f"expected {HASH}: fetch the model again") as error:
        check_weights(folder, HASH)
    assert hashlib.sha256(changed).hexdigest() in str(error.value)


@pytest.mark.parametrize("stated", ["abc", "g" * 64, HASH + "0", f" {HASH}"])
def test_what_is_no_hash_is_refused_before_the_file_is_read(tmp_path, stated):
    with pytest.raises(InputError, match="expected the 64 hexadecimal digits"):
        check_weights(tmp_path, stated)


def test_weights_that_are_missing_cannot_be_checked(tmp_path):
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read \(No such file"):
        check_weights(tmp_path, HASH)


def test_nothing_is_asked_of_a_folder_without_a_hash(tmp_path):
    check_weights(tmp_path, "")
