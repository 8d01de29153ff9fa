"""The smoothed market game, in which bidders learn to bid by following the gradients of their own utilities.

| symbol | code | meaning | unit |
|---|---|---|---|
| n | `bidders` | bidders, each with one value and one bid for each of the `items` | |
| v | `values` | private values | money |
| b | `bids` | bids | money |
| λ | `smoothing` | the difference of bids over which an item changes hands | money |
| x | `share` | the share of an item that a bidder has | |
| p | `price` | what is paid for all of an item | money |
| u | `level` | the quantile level of a value | |

Source: Kohring, Pieroth and Bichler, Enabling first-order gradient-based learning for equilibrium computation in markets,
ICML 2023 (PMLR 202).
"""
