"""Public traces of LLM serving: what there is, and how it gets into a workspace."""
