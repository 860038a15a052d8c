"""The parts of `genpercept serve`: engine (models, queue, batches), decoding in child processes, answers, HTTP, the program."""
