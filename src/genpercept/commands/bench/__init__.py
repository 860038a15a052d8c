"""What `genpercept bench` is made of: settings, processes of their own, clocks, counters, peers, tables."""
