"""Who is who, on both sides: `client_auth` proves a client to us, `server_auth` proves us to PostgreSQL.

Below them `scram` and `md5` are the mechanisms, `secrets` tells kinds of stored secrets apart, and `auth_query` asks
PostgreSQL for one. All pure: randomness is handed in, nothing is read or sent from here, and no secret is ever in a
repr.
"""

from pgweir import compiled

compiled.prefer(__path__)
