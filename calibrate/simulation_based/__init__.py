"""Simulation-based calibration: whether a sampler's posteriors are those of the model that it is given."""
