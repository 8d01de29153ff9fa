"""Calibrating auctions: what bids tell of the values behind them."""
