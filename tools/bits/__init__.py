"""What tools/same_bits.py runs: inputs, one module for each part of the program, hashes, and their comparison."""
