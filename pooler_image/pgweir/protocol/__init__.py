"""PostgreSQL's protocol as pure functions: bytes in, decisions out. No socket, no event loop, no clock lives here."""
