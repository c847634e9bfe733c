"""Many processes: jobs, on this machine or on a cluster."""
