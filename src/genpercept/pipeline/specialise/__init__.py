"""Networks with what is constant in one step folded into weights: exact algebra, rounding aside. See genpercept.specialise."""
