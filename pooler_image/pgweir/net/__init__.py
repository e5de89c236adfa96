"""The edge: uvloop listeners and connectors, TLS, DNS, timers. Everything that touches a socket is in here."""
