"""Leases between peers, and the Ray processes that they carry: lease.py decides, worker.py and head.py act."""
