"""Other poolers' configurations, translated: text in, a Pooler manifest and one sentence for each setting out.

Pure. Nothing is emulated here: a setting becomes one of ours, or the sentence says why it does not. The command line
(`cli`) reads the file and prints the answer.
"""

from pgweir_operator.importing.outcome import Fate, Imported, Line
from pgweir_operator.importing.recognition import NotRecognised, import_configuration

__all__ = ["Fate", "Imported", "Line", "NotRecognised", "import_configuration"]
