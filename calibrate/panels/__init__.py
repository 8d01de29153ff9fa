"""Many markets of one kind: each fitted by itself, side by side and on many machines, or all in one hierarchy."""
