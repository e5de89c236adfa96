"""Print the settings reference."""

from pgweir.settings.reference import settings_reference

print(settings_reference(), end="")
