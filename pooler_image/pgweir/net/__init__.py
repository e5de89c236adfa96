"""The edge: listeners and connectors, transports, TLS, DNS, timers. Everything that touches a socket is in here."""

from pgweir import compiled

compiled.prefer(__path__)
