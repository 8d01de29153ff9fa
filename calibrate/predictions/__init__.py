"""What follows from draws of the parameters: replications, forecasts, and markets that were changed."""
