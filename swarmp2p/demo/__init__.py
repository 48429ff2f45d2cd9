"""`swarmp2p demo`: five peers on this machine run a real job, and one of them is killed while it runs."""
