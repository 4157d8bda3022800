"""Files of weights as they come: bounded in time and memory, and nothing in them is executed."""
