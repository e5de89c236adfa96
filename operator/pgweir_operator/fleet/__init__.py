"""Talking to the pods of a Pooler through their control endpoint: push a configuration, pause, ask what runs.

Every pod is asked at the same time and has a deadline; one that does not answer becomes a PodSilence with its reason,
never an exception. Nothing here reads the API server: addresses, certificates and files are handed in. Called by
reconcile.
"""

from pgweir_operator.fleet.client import Answers, Fleet, Identity, Member, Push

__all__ = ["Answers", "Fleet", "Identity", "Member", "Push"]
