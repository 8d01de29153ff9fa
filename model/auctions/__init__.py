"""Auctions: bidders with private values, their equilibria, and a smoothed game in which bidding is learned."""
