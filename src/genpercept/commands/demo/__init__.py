"""`genpercept demo`: the embedded models on photographs and rendered scenes."""
