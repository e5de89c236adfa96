"""The two sides joined: client connections, server connections, and what passes between them.

Classes here have the method names of `asyncio.Protocol` (`data_received`, `connection_lost`, `pause_writing`, …), so that the
edge plugs them into a transport as they are, and tests call them with bytes. They import no asyncio.
"""

from pgweir import compiled

compiled.prefer(__path__)
