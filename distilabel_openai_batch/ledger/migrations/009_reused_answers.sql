-- Answers that a scope took from another scope. They are copies: no job of the scope was billed for their tokens.
-- source_scope and source name the request that was billed, so that equal requests of a scope never share an answer.

CREATE TABLE reused_answers (
    request INTEGER PRIMARY KEY REFERENCES requests,
    source_scope INTEGER NOT NULL REFERENCES scopes,
    source TEXT NOT NULL
);
-- Scopes whose answers each run of a scope takes for equal requests: the command `adopt --from`.

CREATE TABLE answer_sources (
    scope INTEGER NOT NULL REFERENCES scopes,
    source INTEGER NOT NULL REFERENCES scopes,
    PRIMARY KEY (scope, source)
) WITHOUT ROWID;
-- Outline of a job's first body, which tells what a later run has changed. The outline has no text of a prompt.

CREATE TABLE outlines (
    job INTEGER PRIMARY KEY REFERENCES jobs,
    outline TEXT NOT NULL
);
