"""The settings of a remote tier, as engines are given them, and the wait for a fetch. (Servers: Tests/remote.)"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import open_store

from kvstore.errors import Status
from kvstore.remote import RemoteSettings, add_remote_arguments, remote_arguments, remote_names, wait_for_remote
from kvstore.results import Match

URL = "redis://127.0.0.1:1"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"remote": ""}, "remote is ''"),
        ({"remote": 7}, "remote is 7"),
        ({"remote": "http://cache"}, "redis://HOST:PORT"),
        ({"remote": "redis://"}, "redis://HOST:PORT"),
        ({"remote": "redis://me:secret@cache"}, "remote_credentials_file"),
        ({"remote": URL, "remote_writes": "some"}, "remote_writes is 'some', and can be reused, all, off"),
        ({"remote": URL, "remote_encoding": "zip"}, "remote_encoding is 'zip', and can be raw, frames"),
        ({"remote": URL, "remote_demotes": "yes"}, "remote_demotes is 'yes'"),
        ({"remote": URL, "remote_write_budget": "much"}, "not a size: 'much'"),
        ({"remote": URL, "remote_wait_seconds": -1}, "remote_wait_seconds is -1"),
        ({"remote": URL, "remote_wait_seconds": True}, "remote_wait_seconds is True"),
        ({"remote": URL, "remote_look_up_timeout_seconds": 61}, "60 at most"),
        ({"remote": URL, "remote_key_file": 3}, "remote_key_file is 3"),
        ({"remote": URL, "remote_keyfile": "/key"}, "unknown setting remote_keyfile; there are remote,"),
        ({"remote_key_file": "/key"}, "remote_key_file without remote"),
        ({"remote_writes": "all"}, "remote_writes without remote"),
    ],
)
def test_a_bad_setting_is_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as refused:
        RemoteSettings.remote_of(settings)
    assert said in str(refused.value) and "secret" not in str(refused.value)


def test_what_only_the_library_can_tell(tmp_path: Path) -> None:
    """Files that do not do, a URL that the library does not know: an error, and no store without its remote tier."""
    key = tmp_path / "key"
    key.write_bytes(os.urandom(32))
    key.chmod(0o644)
    for name, value, said in (
        ("remote_key_file", str(key), "remote_key_file"),
        ("remote_key_file", str(tmp_path / "none"), "remote_key_file"),
        ("remote_credentials_file", str(key), "remote_credentials_file"),
        ("remote_ca_file", str(key), "remote"),
        ("remote", "redis://host:port", "URL"),
    ):
        with pytest.raises(ValueError, match=said):
            RemoteSettings.remote_of({"remote": URL, name: value}).open_store(str(tmp_path / "store"), capacity="64MiB")
    with pytest.raises(ValueError, match="read_only"):
        RemoteSettings.remote_of({"remote": URL}).open_store(str(tmp_path / "store"), read_only=True)
    key.chmod(0o600)
    settings = RemoteSettings.remote_of({"remote": URL, "remote_key_file": str(key), "remote_writes": "off"})
    with settings.open_store(str(tmp_path / "store"), capacity="128MiB", host="16MiB") as store:
        assert store.stats()["remote_left_alone"] == 0
    with RemoteSettings.remote_of({"path": "/elsewhere"}).open_store(str(tmp_path / "store"), capacity="128MiB") as store:
        assert store.stats()["remote_look_ups"] == 0


def test_the_same_names_as_the_store_s(path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_remote_arguments(parser, "--kvstore_")
    given = ["--kvstore_remote", URL, "--kvstore_remote_wait_seconds", "0.5", "--kvstore_remote_write_budget", "1GiB"]
    settings = remote_arguments(parser.parse_args(given), "--kvstore_")
    assert settings == RemoteSettings(remote=URL, remote_wait_seconds=0.5, remote_write_budget="1GiB")
    assert remote_arguments(parser.parse_args([]), "--kvstore_") == RemoteSettings()
    with pytest.raises(ValueError, match="remote_key_file without remote"):
        remote_arguments(parser.parse_args(["--kvstore_remote_key_file", "key"]), "--kvstore_")
    values = {"remote": URL, "remote_ttl_seconds": 60, "remote_write_budget": "1GiB"}
    with open_store(path, **values):
        pass
    assert {*values, "remote_wait_seconds"} <= set(remote_names())


def test_the_wait_ends() -> None:
    def match(coming: bool) -> Match:
        return Match(Status.MISS, 0, 0, 0, 0, 0, 0, being_fetched=coming)

    looks = iter([True, True, False])
    assert wait_for_remote(lambda: match(next(looks)), 60)
    assert next(looks, None) is None
    started = time.monotonic()
    assert not wait_for_remote(lambda: match(True), 0.05)
    assert time.monotonic() - started >= 0.05
    # No time for it: nothing is asked.
    assert wait_for_remote(lambda: pytest.fail("it was asked"), 0)
