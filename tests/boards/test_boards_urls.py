"""What a URL of a board may be, and what words it becomes."""

from __future__ import annotations

import itertools

import pytest

from shrink.boards.kinds import EXAMPLES, KINDS, board_of
from shrink.boards.places import Places, places
from shrink.errors import BoardError


def test_every_kind_has_an_example() -> None:
    assert EXAMPLES.keys() == KINDS.keys()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "names no kind of board"),
        ("telnet://pi@host", "names no kind of board"),
        ("local:8080", "takes nothing behind it"),
        ("ssh://-oProxyCommand=touch%20x", "not ssh://user@host"),
        ("ssh://pi@-oProxyCommand=x", "not ssh://user@host"),
        ("ssh://-l@host", "not ssh://user@host"),
        ("ssh://pi:secret@host", "not ssh://user@host"),
        ("ssh://pi@host/etc", "not ssh://user@host"),
        ("ssh://pi@host:notaport", "cannot be read"),
        ("ssh://pi@host:99999", "cannot be read"),
        ("ssh://pi@host/?pyhton=/usr/bin/python3", "only python=PATH and dir=/PATH are"),
        ("ssh://pi@host/?python=python3;reboot", "only python=PATH and dir=/PATH are"),
        ("ssh://pi@host/?python=-c", "only python=PATH and dir=/PATH are"),
        ("ssh://pi@host/?dir=shrink", "is not absolute"),
        ("adb:0123?dir=/x;reboot", "only python=PATH and dir=/PATH are"),
        ("adb:", "not adb:SERIAL"),
        ("adb:-e", "not adb:SERIAL"),
        ("adb:a b", "not adb:SERIAL"),
        ("qemu:max", "wrong int8 answers"),
        ("qemu:cortex-a72,sve=on", "not qemu:CPU"),
        ("qemu:cortex-a75", "not qemu:CPU"),
        ("qemu:cortex-a72", "nothing is in"),
    ],
)
def test_a_url_that_names_no_board_says_why(url: str, why: str, places: Places) -> None:
    with pytest.raises(BoardError, match=why):
        board_of(url, places)


def test_ssh_asks_nothing_trusts_nobody_and_forwards_nothing(places: Places) -> None:
    board = board_of("ssh://pi@10.0.0.7:2222/?python=/opt/python3.12/bin/python3", places)
    command = board.running("-c", "print('a b')")
    assert command[:2] == ["ssh", "-T"]
    options = {word for flag, word in itertools.pairwise(command) if flag == "-o"}
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "GlobalKnownHostsFile=/dev/null", "ForwardAgent=no",
            "ClearAllForwardings=yes", "User=pi", f'UserKnownHostsFile="{places.known_hosts}"'} <= options  # fmt: skip
    assert command[command.index("--") + 1 :] == [
        "10.0.0.7",
        """/opt/python3.12/bin/python3 -c 'print('"'"'a b'"'"')'""",
    ]
    assert ("-p", "2222") in itertools.pairwise(command)
    copy = board.copying(["a", "b"], "/run")
    assert copy[-4:] == ["--", "a", "b", "10.0.0.7:/run/"]
    assert ("-P", "2222") in itertools.pairwise(copy)


def test_a_host_of_ipv6_is_in_brackets_where_scp_needs_them(places: Places) -> None:
    assert board_of("ssh://pi@[fe80::1]", places).copying(["a"], "/run")[-1] == "[fe80::1]:/run/"


def test_adb_always_names_the_device(places: Places) -> None:
    board = board_of("adb:0123ABC?python=/data/local/tmp/bin/python3", places)
    assert board.running("-c", "1")[:5] == ["adb", "-s", "0123ABC", "shell", "-T"]
    assert board.copying(["a"], "/run") == ["adb", "-s", "0123ABC", "push", "a", "/run/"]


def test_a_directory_there_can_be_named(places: Places) -> None:
    assert board_of("adb:0123?dir=/sdcard-none/x", places).base == "/sdcard-none/x"
    assert board_of("ssh://pi@host/?dir=/big/x&python=python3.12", places).base == "/big/x"


def test_a_phone_has_no_python_so_its_own_is_started_by_its_own_loader(places: Places) -> None:
    words = board_of("adb:0123ABC", places).running("-V")[-1].split()
    root = "/data/local/tmp/shrink-board/python"
    assert words[0] == f"{root}/lib/ld-linux-aarch64.so.1" and f"{root}/usr/bin/python3.11" in words


def test_places_follow_the_xdg_variables_and_the_home_directory() -> None:
    assert places({"HOME": "/h"}).known_hosts.as_posix() == "/h/.config/shrink/known_hosts"
    given = {"HOME": "/h", "XDG_CACHE_HOME": "/c", "XDG_CONFIG_HOME": "relative"}
    assert places(given) == Places(places({"HOME": "/c"}).here.parents[2] / "shrink", places({"HOME": "/h"}).config)
