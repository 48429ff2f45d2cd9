"""Our peers and other implementations of the same protocols, over real connections on loopback."""
