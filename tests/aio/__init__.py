"""swarmp2p in asyncio."""
