-- Parameters that a server refused for a model, as a deployment or an alias does not show them: the next run knows.

CREATE TABLE refused_parameters (
    base_url TEXT NOT NULL,
    model TEXT NOT NULL,
    parameter TEXT NOT NULL,
    PRIMARY KEY (base_url, model, parameter)
) WITHOUT ROWID;
-- Answered requests whose text the limit of tokens cut.

CREATE TABLE cut_answers (
    request INTEGER PRIMARY KEY REFERENCES requests
);
