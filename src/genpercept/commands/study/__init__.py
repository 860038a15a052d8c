"""Running a study: jobs side by side, held-out scores, paired statistics, the report."""
