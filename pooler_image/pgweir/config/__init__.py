"""Configuration files, read and ruled: `load` a Config or get a ConfigError, all or nothing.

`ini` knows the syntax, `loading` opens files (alone in the pooler's configuration), `effective` is the frozen
result and knows which value wins.
"""

from pgweir.config.effective import CONSOLE_DATABASE, TEMPLATE, Config
from pgweir.config.ini import ConfigError
from pgweir.config.loading import find_faults, load, with_setting

__all__ = ["CONSOLE_DATABASE", "TEMPLATE", "Config", "ConfigError", "find_faults", "load", "with_setting"]
