-- When the last of the tokens ends that a revocation concerns: it is removed soon after that. Nothing where nobody has
-- said so; then it follows from the longest life of a token, if the deployment has set one.
ALTER TABLE revocation ADD COLUMN ends_at timestamptz;
