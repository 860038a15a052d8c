"""Albedo for genpercept: the share of the light that a surface reflects, by colour."""
