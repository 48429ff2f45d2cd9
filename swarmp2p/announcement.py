"""A service while it is announced."""

from __future__ import annotations

from collections.abc import Mapping

from .arguments import mapping_argument
from .dht.events import Announce, Withdraw
from .dht.records import Attribute, check_attributes
from .queries import Queries


class Announcement:
    """A service that is being announced; `update` replaces its attributes."""

    def __init__(self, queries: Queries, service: str, index: tuple[str, ...] | None = None) -> None:
        self._queries, self.service, self._index = queries, service, index

    async def update(self, attributes: Mapping[str, Attribute]) -> None:
        """Announce new attributes; raises UsageError when they do not fit into a record (nothing is changed)."""
        mapping_argument(attributes, "a service's attributes")
        check_attributes(self.service, attributes)
        items = tuple(sorted(attributes.items()))
        await self._queries.run(lambda query: Announce(query, self.service, items, self._index))

    async def withdraw(self) -> None:
        """Tell those who hold the record that it is over."""
        await self._queries.run(lambda query: Withdraw(query, self.service))
