"""How outputs of a market depend on its parameters: local elasticities, and indices of global sensitivity."""
