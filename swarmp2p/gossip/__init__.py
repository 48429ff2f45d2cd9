"""Gossip: signed messages to all subscribers of a topic, and the load signals and balancing built on it."""
