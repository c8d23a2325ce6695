-- Version 3. Failure cause of a download: 0 if it did not fail or gave none, else the cause's number on the wire. The
-- CNs' log records are stored among the records: kinds 5 login, 6 registration, 7 offer.
ALTER TABLE download ADD COLUMN cause INTEGER NOT NULL DEFAULT 0;
CREATE INDEX record_by_kind ON record (day, kind) WHERE kind >= 5;
