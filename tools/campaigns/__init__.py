"""Campaigns against the program: many damaged, hostile or interrupted runs, each with a seed, a bound in time and a page."""
