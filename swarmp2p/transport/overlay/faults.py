"""What may be wrong with bytes that came. Neither leaves the session: both become events."""


class Untrue(Exception):
    """What came on a carrier connection is not what the partner sent there: that connection ends."""


class Broken(Exception):
    """The partner itself, proven, breaks the protocol: the session ends."""
