"""`genpercept export`: a model for other programs."""
