"""The ensemble over several machines: branches hold the models, a front holds the queries and their policies.

What crosses the network is plain data (`errand`), so that any carrier will do; `deploy` has the one of Ray Serve.
"""
