"""What a Pooler needs from PostgreSQL, and giving it back: role, lookup function, certificates.

`sql`, `certificates` and `control` decide and touch nothing; `login` and `provisioning` act. A failure leaves this room
as a PrerequisiteError, which carries its condition reason and a retry delay, and never a password. Nothing here speaks
to the API server: the Secrets' contents are handed in. Called by reconcile.
"""
