-- Requests of a batch that nothing sets apart from each other, in packs; see `packs.py`. A request whose outcome or fate
-- differs has a row in the table `requests`.
--
-- packs.id is a multiple of 1,000, and the id of the pack's first request. No id is used twice.
-- packs.answered is 1 once the ledger has the answers to all requests of the pack.

CREATE TABLE packs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    scope INTEGER NOT NULL REFERENCES scopes,
    job INTEGER NOT NULL REFERENCES jobs,
    size INTEGER NOT NULL,
    answered INTEGER NOT NULL DEFAULT 0,
    handed_over INTEGER NOT NULL DEFAULT 0,
    used_at REAL,
    tokens_in INTEGER NOT NULL DEFAULT 0,
    tokens_out INTEGER NOT NULL DEFAULT 0,
    tokens_cached INTEGER NOT NULL DEFAULT 0,
    tokens_written INTEGER NOT NULL DEFAULT 0,
    tokens_reasoning INTEGER NOT NULL DEFAULT 0,
    model TEXT,
    long_usages TEXT,
    digests BLOB NOT NULL,
    occurrences BLOB,
    places BLOB,
    usage BLOB
);
CREATE INDEX packs_by_scope ON packs (scope, id);
CREATE INDEX packs_by_job ON packs (job);

-- Result lines of answered requests in packs. The id is that of the part's first request.

CREATE TABLE answer_parts (
    id INTEGER PRIMARY KEY,
    compression TEXT,
    lengths BLOB NOT NULL,
    lines BLOB NOT NULL
);
