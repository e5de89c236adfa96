"""The doctor's head: facts in, findings out. Pure, no I/O.

`facts` is what was looked at, `rules` has one function for each finding, `diagnosis` walks them in the order in which a person
would search: names, network, TLS, login, time, pool, PostgreSQL, what the operator reports. `reading` makes facts of
what the probe
and the API server answered. The collectors are `cli.doctor` (any pooler) and `cli.plugin.doctor` (a Pooler's pods).
"""
