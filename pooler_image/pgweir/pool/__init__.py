"""The bookkeeping of pools: who has a server, who waits, who may be opened, who must go. No I/O; `now` is handed in."""

from pgweir import compiled

compiled.prefer(__path__)
