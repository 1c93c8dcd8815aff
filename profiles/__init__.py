"""Facts: hardware, models, links, prices, workloads, and the files that describe ensembles. Imports nothing of ours."""
