"""Observing markets of price formation: prices, with supply known, measured with error, or latent."""
