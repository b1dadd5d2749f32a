-- The begin of the last run that used an answer, in seconds since the epoch.

ALTER TABLE requests ADD COLUMN used_at REAL;
-- The start of the prompt of a request that failed, or whose answer lacks a generation.

CREATE TABLE prompt_starts (
    request INTEGER PRIMARY KEY REFERENCES requests,
    text TEXT NOT NULL
);
