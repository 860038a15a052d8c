"""`genpercept inspect`: what a model is."""
