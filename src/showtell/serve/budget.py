"""The limit on bytes of uploads in memory, over all requests."""

import asyncio

from showtell.serve.errors import overloaded


class ByteBudget:
    """Counts the bytes that requests hold in memory; belongs to one event loop."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held = 0
        self._given = asyncio.Event()

    def take(self, count: int) -> None:
        """Takes `count` bytes of the budget. Raises RequestError (503) where it has fewer left."""
        if self.held + count > self.capacity:
            raise overloaded(f"uploads of {self.held:,} bytes are in memory; the limit is {self.capacity:,}")
        self.held += count

    def give(self, count: int) -> None:
        """Returns `count` bytes to the budget."""
        self.held -= count
        self._given.set()

    async def room(self) -> None:
        """Waits until half of the budget is free, so that other requests precede one with many photos."""
        while self.held > self.capacity // 2:
            self._given.clear()
            await self._given.wait()
