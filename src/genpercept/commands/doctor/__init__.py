"""`genpercept doctor`: what works here."""
