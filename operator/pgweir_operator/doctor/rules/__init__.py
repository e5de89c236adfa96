"""One function for each finding: it takes the facts and answers a Finding or None. Pure."""
