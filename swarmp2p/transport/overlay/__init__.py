"""The overlay: a cluster's traffic between two peers, encrypted end to end, without root."""
