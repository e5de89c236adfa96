"""Clients are held while the primary moves: CloudNativePG's and EDB's Cluster objects say it a moment before sessions end.

`cluster` reads a Cluster object, `decision` is the whole policy and is pure, `conductor` is the one edge: it watches,
sends the orders and writes status.switchover. Nothing here waits for a reconcile pass: a Cluster's event goes straight
to the pods. Called by reconcile (which pods there are), handlers (what a Pooler's annotation asks for) and main.
"""

from pgweir_operator.switchover.conductor import Standing, Switchovers, standing

__all__ = ["Standing", "Switchovers", "standing"]
