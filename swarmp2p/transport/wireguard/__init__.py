"""WireGuard as a carrier of a cluster's traffic, for machines whose owner may create network interfaces.

`keys.py`: a key for one cluster, and the identity's word for it. `description.py`: what an interface is to be, and
what differs between two descriptions. `texts.py`, `firewall.py`: that in the words of `wg`, `ip` and `nft`.
`tunnel.py` makes it so, `keeper.py` takes it away whatever happens, `leftovers.py` what even that left behind.
"""
