"""The mesh of a cluster: who is a member, where each is reached, and by which secret two of them speak. Pure."""
