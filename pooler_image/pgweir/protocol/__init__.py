"""PostgreSQL's frontend/backend protocol as pure functions and state machines.

Bytes in, decisions out: nothing here opens a socket, reads a clock or knows an event loop (import-linter holds that).
"""

from pgweir import compiled

compiled.prefer(__path__)
