"""Which model is in use: versions, the promotion gate, and MLflow's registry in step with them."""
