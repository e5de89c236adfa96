"""How people and programs look in: the console, metrics, REST, the control endpoint."""
