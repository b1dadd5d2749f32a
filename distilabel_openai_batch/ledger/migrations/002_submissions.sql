-- The rows of a submission, and the server's id of the file that holds the same rows.

CREATE TABLE rows (
    scope INTEGER NOT NULL REFERENCES scopes,
    number INTEGER NOT NULL,
    line BLOB NOT NULL,
    PRIMARY KEY (scope, number)
) WITHOUT ROWID;
ALTER TABLE scopes ADD COLUMN rows_file_id TEXT;
CREATE INDEX jobs_by_batch ON jobs (batch_id);
