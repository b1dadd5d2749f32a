-- Counts of collected jobs, see `job_counts.py`. Long prompts have more than 128,000 tokens.

CREATE TABLE job_counts (
    job INTEGER PRIMARY KEY REFERENCES jobs,
    answered INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    pending INTEGER NOT NULL,
    tokens_in INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL,
    tokens_cached INTEGER NOT NULL,
    tokens_written INTEGER NOT NULL,
    tokens_reasoning INTEGER NOT NULL,
    long_usages TEXT
);
INSERT INTO job_counts
    SELECT jobs.id, sum(requests.state = 'answered'), sum(requests.state = 'failed'), sum(requests.state = 'asked'),
        coalesce(sum(tokens_in), 0), coalesce(sum(tokens_out), 0), coalesce(sum(tokens_cached), 0),
        coalesce(sum(tokens_written), 0), coalesce(sum(tokens_reasoning), 0),
        group_concat(CASE WHEN tokens_in > 128000 THEN
            tokens_in || ' ' || coalesce(tokens_out, 0) || ' ' || coalesce(tokens_cached, 0) || ' '
                || coalesce(tokens_written, 0) || ' ' || coalesce(tokens_reasoning, 0)
        END)
    FROM jobs JOIN requests ON requests.job = jobs.id WHERE jobs.state = 'collected' GROUP BY jobs.id;
CREATE INDEX requests_failed ON requests (scope, id) WHERE state = 'failed';
