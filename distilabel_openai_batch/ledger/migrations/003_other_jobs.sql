-- Further jobs that hold or held a request: `LoadBatchResults` selects requests by batch.

CREATE TABLE other_jobs (
    request INTEGER NOT NULL REFERENCES requests,
    job INTEGER NOT NULL REFERENCES jobs,
    PRIMARY KEY (request, job)
) WITHOUT ROWID;
CREATE TRIGGER requests_moved AFTER UPDATE OF job ON requests WHEN OLD.job != NEW.job BEGIN
    INSERT OR IGNORE INTO other_jobs (request, job) VALUES (OLD.id, OLD.job);
END;
