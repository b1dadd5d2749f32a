-- The begin of the run that a session with jobs belonged to: a script may open a session for each call of `generate`.

CREATE TABLE run_owners (
    owner TEXT PRIMARY KEY,
    began_at REAL NOT NULL
) WITHOUT ROWID;
