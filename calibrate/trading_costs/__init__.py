"""Calibrating markets with trading costs."""
