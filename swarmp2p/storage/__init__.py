"""State on disk: what a peer keeps over restarts, in one SQLite file beside its key."""
