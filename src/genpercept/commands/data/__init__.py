"""`genpercept data`: list, check and preview data sets."""
