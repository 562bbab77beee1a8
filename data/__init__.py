"""Floor 0: log formats, the canonical schema, the DuckDB store, and workloads made or reconstructed."""
