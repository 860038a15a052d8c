"""`genpercept evaluate`: models on data sets."""
