-- Tokens that the server wrote to its cache, and tokens of reasoning.

ALTER TABLE requests ADD COLUMN tokens_written INTEGER;
ALTER TABLE requests ADD COLUMN tokens_reasoning INTEGER;

-- The user's prices of the run that planned a job; the usage and the model that the server's batch object shows.

ALTER TABLE jobs ADD COLUMN prices TEXT;
ALTER TABLE jobs ADD COLUMN billed_usage TEXT;
ALTER TABLE jobs ADD COLUMN billed_model TEXT;
