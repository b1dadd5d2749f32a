-- The moments at which a batch changed its status, and the counts that a run saw when it polled the batch.

ALTER TABLE jobs ADD COLUMN in_progress_at REAL;
ALTER TABLE jobs ADD COLUMN finalizing_at REAL;
ALTER TABLE jobs ADD COLUMN cancelling_at REAL;
ALTER TABLE jobs ADD COLUMN finished_at REAL;
CREATE TABLE looks (
    job INTEGER NOT NULL REFERENCES jobs,
    seen_at REAL NOT NULL,
    completed INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    PRIMARY KEY (job, seen_at)
) WITHOUT ROWID;
