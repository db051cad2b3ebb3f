"""How many bytes of uploads are in memory, over all requests."""

import asyncio

from showtell.serve.errors import overloaded


class ByteBudget:
    """Counts bytes that requests hold; belongs to one event loop."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held = 0
        self._given = asyncio.Event()

    def take(self, count: int) -> None:
        """Raises RequestError (503) where so many more do not fit."""
        if self.held + count > self.capacity:
            raise overloaded(f"uploads of {self.held:,} bytes are in memory, and {self.capacity:,} is what fits")
        self.held += count

    def give(self, count: int) -> None:
        """Back again."""
        self.held -= count
        self._given.set()

    async def room(self) -> None:
        """Waits until at least half is free: what sends many photos lets the others go first."""
        while self.held > self.capacity // 2:
            self._given.clear()
            await self._given.wait()
