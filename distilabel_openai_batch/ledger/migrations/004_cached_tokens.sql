-- Tokens in that were billed at the cached price.

ALTER TABLE requests ADD COLUMN tokens_cached INTEGER;
