"""`genpercept train`: what a recipe describes."""
