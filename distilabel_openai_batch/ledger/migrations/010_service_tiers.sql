-- The service tier that a synchronous answer names, if its price is not that of the default tier.

ALTER TABLE requests ADD COLUMN tier TEXT;
CREATE INDEX requests_by_tier ON requests (job, tier) WHERE tier IS NOT NULL;
