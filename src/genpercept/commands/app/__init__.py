"""`genpercept app`: every task on one photograph, in a browser."""
