"""Errors: each one says what failed and what to do, carries its values, and survives a trip between processes."""

from __future__ import annotations

import copy
import pickle

import pytest

from swarmp2p import errors
from swarmp2p.errors import (
    AddressError,
    BadMessage,
    BootstrapError,
    DialError,
    GrantError,
    HeadFailed,
    IdentityFileError,
    InviteError,
    ListenError,
    LookupFailed,
    MdnsError,
    NetworkKeyError,
    NoCell,
    NoJail,
    NoSnapshot,
    NotEnoughWorkers,
    PeerClosed,
    PeerMismatch,
    PeerNotFound,
    ProtocolUnsupported,
    RayMissing,
    SealedBoxError,
    StateFileError,
    SwarmError,
    UsageError,
    ValueNotFound,
    WireGuardFailed,
    WorkerNotStarted,
)

# error, what its text must name, its attributes
CASES: list[tuple[SwarmError, tuple[str, ...], dict[str, object]]] = [
    (SwarmError("what happened"), ("what happened",), {}),
    (UsageError("too many"), ("too many",), {}),
    (SealedBoxError("altered"), ("altered",), {}),
    (BadMessage("no map"), ("no map",), {}),
    (MdnsError("no such device"), ("no such device", "without mdns"), {"problem": "no such device"}),
    (
        NetworkKeyError("/a/key", "its mode is 0644", "chmod 600 /a/key"),
        ("network key file /a/key", "0644", "chmod 600"),
        {"path": "/a/key", "problem": "its mode is 0644", "remedy": "chmod 600 /a/key"},
    ),
    (
        InviteError("it expired 3 days ago", "ask for another one"),
        ("invite", "3 days ago", "another one"),
        {"problem": "it expired 3 days ago", "remedy": "ask for another one"},
    ),
    (
        GrantError("a signature is not genuine", "ask for another one"),
        ("grant", "not genuine", "another one"),
        {"problem": "a signature is not genuine", "remedy": "ask for another one"},
    ),
    (PeerClosed("closed"), ("closed",), {}),
    (LookupFailed("nobody"), ("nobody",), {}),
    (ProtocolUnsupported("not spoken"), ("not spoken",), {}),
    (
        IdentityFileError("/a/key", "its mode is 0644", "chmod 600 /a/key"),
        ("/a/key", "0644", "chmod 600"),
        {"path": "/a/key", "problem": "its mode is 0644", "remedy": "chmod 600 /a/key"},
    ),
    (
        StateFileError("/a/key", "its mode is 0644", "chmod 600 /a/key"),
        ("/a/key", "0644", "chmod 600"),
        {"path": "/a/key", "problem": "its mode is 0644", "remedy": "chmod 600 /a/key"},
    ),
    (
        AddressError("localhost:80", "no slash"),
        ("localhost:80", "no slash", "/ip4/"),
        {"address": "localhost:80"},
    ),
    (
        DialError("/ip4/1.2.3.4/tcp/1", "timed out", "check the address"),
        ("/ip4/1.2.3.4/tcp/1", "timed out", "check the address"),
        {"address": "/ip4/1.2.3.4/tcp/1", "problem": "timed out"},
    ),
    (
        PeerMismatch("/a", "another key", "check the id"),
        ("/a", "another key", "check the id"),
        {"address": "/a"},
    ),
    (BootstrapError("/a", "refused", "start it"), ("/a", "refused", "start it"), {"address": "/a"}),
    (ListenError("/a", "in use"), ("/a", "in use", "another port"), {"address": "/a"}),
    (PeerNotFound("12D3"), ("12D3", "nobody asked"), {"peer": "12D3"}),
    (ValueNotFound(b"\x0a\x0b"), ("0a0b",), {"key": b"\x0a\x0b"}),
    (RayMissing(), ("pip install",), {}),
    (HeadFailed("exit 1", "/log"), ("exit 1", "/log"), {"problem": "exit 1", "log": "/log"}),
    (NoCell("forbidden"), ("forbidden", "Nothing was started"), {"reason": "forbidden"}),
    (NoJail("no bwrap"), ("no bwrap", "Nothing was started"), {"reason": "no bwrap"}),
    (
        NoSnapshot("12D3", (("12D4", "a forged header"),)),
        ("12D3's cluster", "12D4 gave a forged header", "Nothing was written"),
        {"borrower": "12D3", "faults": (("12D4", "a forged header"),)},
    ),
    (
        WireGuardFailed("swarm7", "no such device"),
        ("swarm7", "no such device", "Other paths work"),
        {"interface": "swarm7", "problem": "no such device"},
    ),
    (WorkerNotStarted("no python", "/log"), ("no python", "/log"), {"reason": "no python", "log": "/log"}),
    (
        NotEnoughWorkers(3, 1, (("12D3", "full"),)),
        ("1 of 3", "12D3: full", "released"),
        {"wanted": 3, "leased": 1, "refusals": (("12D3", "full"),)},
    ),
    (NotEnoughWorkers(3, 0), ("0 of 3", "no provider was found"), {"refusals": ()}),
    (NotEnoughWorkers(3, 1), ("1 of 3", "no further provider was found"), {"refusals": ()}),
]


def test_every_error_is_tried_here_and_is_a_swarm_error() -> None:
    defined = {
        item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, Exception)
    }
    assert {type(error) for error, _, _ in CASES} == defined
    assert all(issubclass(item, SwarmError) for item in defined)


def test_wrong_arguments_are_value_errors_too() -> None:
    assert issubclass(UsageError, ValueError)
    assert issubclass(AddressError, UsageError)


@pytest.mark.parametrize(("error", "named", "values"), CASES, ids=lambda case: type(case).__name__)
def test_the_text_names_what_matters_and_the_values_are_there(
    error: SwarmError, named: tuple[str, ...], values: dict[str, object]
) -> None:
    assert all(part in str(error) for part in named), str(error)
    assert {name: getattr(error, name) for name in values} == values


@pytest.mark.parametrize(("error", "named", "values"), CASES, ids=lambda case: type(case).__name__)
def test_errors_survive_pickling_and_copying(
    error: SwarmError, named: tuple[str, ...], values: dict[str, object]
) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert {name: getattr(again, name) for name in values} == values
