"""The errors that swarmp2p raises.

Each message says what failed, why, what to do next and whether anything changed; the values stand in
attributes too. Bytes from a peer never raise inside an engine: a decoder raises `BadMessage`, the network
catches it and counts it against the peer that sent them.
"""

from __future__ import annotations


class SwarmError(Exception):
    """Base of everything that swarmp2p raises on purpose."""

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's own way calls the class with the finished text, which the classes below do not take: such
        # errors could not be sent from one process to another.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[SwarmError], args: tuple[object, ...], values: dict[str, object]) -> SwarmError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(values)
    return error


class UsageError(SwarmError, ValueError):
    """An argument cannot be used as it is; nothing was changed."""


class IdentityFileError(SwarmError):
    """A key file cannot be used; it was left as it is, and no new identity was made.

    path: the file.
    """

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        super().__init__(f"cannot use the identity file {path}: {problem}; {remedy}")
        self.path, self.problem, self.remedy = path, problem, remedy


class NetworkKeyError(SwarmError):
    """A private swarm's key cannot be used, or not written; nothing was changed.

    path: the file, where it is one.
    """

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        where = f"the network key file {path}" if path else "this network key"
        super().__init__(f"cannot use {where}: {problem}; {remedy}")
        self.path, self.problem, self.remedy = path, problem, remedy


class InviteError(SwarmError):
    """An invite cannot be used; nobody was dialled."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"cannot use this invite: {problem}; {remedy}")
        self.problem, self.remedy = problem, remedy


class GrantError(SwarmError):
    """A grant cannot be used; nothing was asked of anybody."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"cannot use this grant: {problem}; {remedy}")
        self.problem, self.remedy = problem, remedy


class StateFileError(SwarmError):
    """A state file cannot be used; it was left as it is, and no peer was started.

    path: the file.
    """

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        super().__init__(f"cannot use the state file {path}: {problem}; {remedy}")
        self.path, self.problem, self.remedy = path, problem, remedy


class SealedBoxError(SwarmError):
    """A sealed box was not made for this identity, or was altered on its way; nothing was decrypted."""


class BadMessage(SwarmError):
    """Bytes from a peer do not follow the protocol. Raised by decoders only, caught by the network."""


class AddressError(UsageError):
    """A text is not a multiaddr that a peer can be dialled at.

    address: the text as given.
    """

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(
            f"cannot use the address {address!r}: {problem}; "
            "an address looks like /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW..."
        )
        self.address = address


class DialError(SwarmError):
    """A peer could not be reached; nothing was sent.

    address: what was dialled, as text.
    """

    def __init__(self, address: str, problem: str, remedy: str) -> None:
        super().__init__(f"cannot reach {address}: {problem}; {remedy}")
        self.address, self.problem, self.remedy = address, problem, remedy


class PeerMismatch(DialError):
    """Whoever answers at the address holds another key than the address names; the connection was closed."""


class BootstrapError(DialError):
    """No bootstrap address answered; the peer was not started."""


class ListenError(SwarmError):
    """A listen address cannot be bound; the peer was not started.

    address: the multiaddr that was asked for, as text.
    """

    def __init__(self, address: str, problem: str, remedy: str = "") -> None:
        remedy = remedy or "choose another port, or /tcp/0 to let the system choose"
        super().__init__(f"cannot listen on {address}: {problem}; {remedy}")
        self.address, self.problem, self.remedy = address, problem, remedy


class MdnsError(SwarmError):
    """The local network cannot be searched; the peer was not started."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"cannot use multicast DNS: {problem}; listen on an address of an interface that has multicast, or open "
            "the peer without mdns"
        )
        self.problem = problem


class PeerClosed(SwarmError):
    """The peer was closed while the call was under way, or before it; open a new one with open_peer()."""


class PeerNotFound(SwarmError):
    """A lookup ended without finding the peer; nothing was changed.

    peer: the id that was looked for, as text.
    """

    def __init__(self, peer: str) -> None:
        super().__init__(
            f"no address found for peer {peer}: nobody asked knows it; check the id, or try again later"
        )
        self.peer = peer


class LookupFailed(SwarmError):
    """A DHT operation reached nobody; nothing was stored or found out."""


class ValueNotFound(SwarmError):
    """No peer that was asked holds a valid value under the key; nothing was changed.

    key: the key that was looked for.
    """

    def __init__(self, key: bytes) -> None:
        super().__init__(
            f"no value found under {key.hex()}: nobody asked holds one; check the key, or put a value"
        )
        self.key = key


class ProtocolUnsupported(SwarmError):
    """The other peer does not speak the protocol; no stream was opened."""


class RayMissing(SwarmError):
    """Ray is not installed; nothing was started."""

    def __init__(self) -> None:
        super().__init__(
            "Ray is not installed here; install it with: pip install 'swarmp2p[ray]'. Nothing was started"
        )


class HeadFailed(SwarmError):
    """The Ray head did not start, or died; everything it had started was stopped.

    problem: what happened, in one line. log: path of its log.
    """

    def __init__(self, problem: str, log: str) -> None:
        super().__init__(f"the Ray head failed: {problem}; nothing is left running. Its log is {log}")
        self.problem, self.log = problem, log


class NoSnapshot(SwarmError):
    """No peer that was asked has a snapshot of this borrower's cluster that can be used; nothing was written.

    borrower: its peer id, as text. faults: (holder's id as text, what it gave) of those that gave what is not genuine.
    """

    def __init__(self, borrower: str, faults: tuple[tuple[str, str], ...] = ()) -> None:
        told = "".join(f"; {holder} gave {fault}" for holder, fault in faults)
        super().__init__(
            f"no peer that was found holds a snapshot of {borrower}'s cluster{told}; use the identity file of the "
            "machine that borrowed, and try again when more lenders are there. Nothing was written"
        )
        self.borrower, self.faults = borrower, faults


class NoCell(SwarmError):
    """This machine gives no network namespace of its own to a worker; nothing was started.

    reason: why, and the command that enables it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"no cell for a worker: {reason}. Nothing was started")
        self.reason = reason


class NoJail(SwarmError):
    """This machine cannot jail workers; nothing was started.

    reason: why, and the command that enables it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            f'no jail for workers: {reason}; or lend without one, isolation="none" (--isolation none), to whom you '
            "would give a shell on this machine. Nothing was started"
        )
        self.reason = reason


class WorkerNotStarted(SwarmError):
    """A Ray worker did not start, or could not join its head; everything it had started was stopped.

    reason: why, in one line. log: path of its log.
    """

    def __init__(self, reason: str, log: str) -> None:
        super().__init__(f"the Ray worker did not start: {reason}; nothing is left running. Its log is {log}")
        self.reason, self.log = reason, log


class WireGuardFailed(SwarmError):
    """A WireGuard interface could not be made, changed or kept; what was made of it is taken away again.

    interface: its name. problem: why, in one line.
    """

    def __init__(self, interface: str, problem: str) -> None:
        super().__init__(
            f"WireGuard's interface {interface} failed: {problem}; it is taken away, and nothing of it stays. "
            "Other paths work without it"
        )
        self.interface, self.problem = interface, problem


class NotEnoughWorkers(SwarmError):
    """Fewer workers could be leased than asked for; those that were leased have been released.

    wanted, leased: counts. refusals: (peer id as text, reason) of each provider that declined.
    """

    def __init__(self, wanted: int, leased: int, refusals: tuple[tuple[str, str], ...] = ()) -> None:
        told = "; ".join(f"{peer}: {reason}" for peer, reason in refusals) or (
            "no further provider was found" if leased else "no provider was found"
        )
        super().__init__(
            f"leased {leased} of {wanted} workers ({told}); start more lenders, have them allow this peer, "
            "or ask for fewer workers. All leases were released"
        )
        self.wanted, self.leased, self.refusals = wanted, leased, refusals
