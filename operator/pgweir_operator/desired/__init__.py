"""What should be: one pure builder per kind of child, and the text files that the pods run on.

Nothing here looks at the world or changes it; reconcile.py hands in what was observed and applies what comes out.
"""

from pgweir_operator.desired.deployment import default_image
from pgweir_operator.desired.state import ChildReference, Desired, desired_state

__all__ = ["ChildReference", "Desired", "default_image", "desired_state"]
