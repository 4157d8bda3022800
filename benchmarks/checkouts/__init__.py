"""Other people's code as it comes, with its models accelerated: one command on checkouts.

    python -m benchmarks checkouts --official-v1 VideoMAE --official-v2 VideoMAEv2

Scripts, engines, loaders and models are those of the checkouts. What they import and can't be had
beside any build of torch has a stand-in (:mod:`benchmarks.checkouts.packages`); the other packages
are in the extra ``checkouts``.
"""
