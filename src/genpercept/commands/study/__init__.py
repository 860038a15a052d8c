"""`genpercept study`: the arms of a study, trained and compared."""
