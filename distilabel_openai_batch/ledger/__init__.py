"""The ledger: one SQLite file with the requests, jobs and answers of every run."""
