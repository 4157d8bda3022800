"""The ops: one file per op with its contract, reference, registration and choice of backend."""
