"""Each op by itself: times, choices of backend and launch, machine code."""
