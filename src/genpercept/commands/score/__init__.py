"""`genpercept score`: stored predictions against ground truth."""
