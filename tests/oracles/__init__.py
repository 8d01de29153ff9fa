"""Independent NumPy and SciPy routes to numbers that the package computes in closed form."""
