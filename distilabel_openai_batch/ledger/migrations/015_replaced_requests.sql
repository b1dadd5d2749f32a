-- Requests whose row got the outcome of another request: a retry with a higher limit, or one that names the error.

CREATE TABLE replaced_requests (
    request INTEGER PRIMARY KEY REFERENCES requests
);
