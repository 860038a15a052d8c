"""`genpercept fit`: models and their thresholds for every part of a data set, with the figures that they reach."""
