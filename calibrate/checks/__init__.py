"""Whether a fit can be trusted, and whether data look like what it predicts."""
