-- Requests, the jobs that hold them, and their answers.
--
-- requests.state is 'asked' while the request is pending, then 'answered' or 'failed' (`states.py`).
-- requests.handed_over is 1 once a run that succeeded has delivered the answer.
-- requests.digest has no reader. Dropping the column would need a migration, keeping the column costs nothing.

CREATE TABLE scopes (
    id INTEGER PRIMARY KEY,
    pipeline TEXT NOT NULL,
    task TEXT NOT NULL,
    base_url TEXT NOT NULL,
    UNIQUE (pipeline, task, base_url)
);
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    scope INTEGER NOT NULL REFERENCES scopes,
    key TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    state TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    model TEXT NOT NULL,
    requests INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    intended_at REAL NOT NULL,
    input_file_id TEXT,
    batch_id TEXT,
    status TEXT,
    completed INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0,
    ended_at REAL,
    error TEXT
);
CREATE INDEX jobs_by_scope ON jobs (scope, state);
CREATE TABLE requests (
    id INTEGER PRIMARY KEY,
    scope INTEGER NOT NULL REFERENCES scopes,
    custom_id TEXT NOT NULL,
    digest TEXT GENERATED ALWAYS AS (substr(custom_id, 1, 32)) VIRTUAL,
    job INTEGER NOT NULL REFERENCES jobs,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    handed_over INTEGER NOT NULL DEFAULT 0,
    status_code INTEGER,
    code TEXT,
    error TEXT,
    tokens_in INTEGER,
    tokens_out INTEGER,
    UNIQUE (scope, custom_id)
);
CREATE INDEX requests_by_job ON requests (job);
CREATE TABLE answers (
    request INTEGER PRIMARY KEY REFERENCES requests,
    line BLOB NOT NULL
);
