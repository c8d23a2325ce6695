-- As SQLite's version 3.
ALTER TABLE download ADD COLUMN cause BIGINT NOT NULL DEFAULT 0;
CREATE INDEX record_by_kind ON record (day, kind) WHERE kind >= 5;
