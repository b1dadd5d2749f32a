"""The ledger: one SQLite file with the requests, jobs and answers of every run.

The modules, each importing only modules below:

- `ledger`: the file, open for a run. `reader`, `entries`: the file, open for the command line.
- `adopted_jobs`, `job_table`, `request_table`, `row_failures`, `submissions`: the statements on the tables, for one
  scope.
- `scope_row`, `owners`: the row of a scope; the locks by which a session learns that another session died.
- `connection`, `schema`, `migrations/`: SQLite's connection, transactions, and the tables.
- `states`, `files`: states of jobs and requests; place of the file, and errors.
"""
