"""The operator that manages `Pooler` resources; start reading at `handlers`."""
