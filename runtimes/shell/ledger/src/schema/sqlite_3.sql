-- Version 3. Why a download failed: 0 not, or not said; else the number of the cause on the wire. What CNs log is kept
-- among the records: kinds 5 login, 6 registration, 7 offer.
ALTER TABLE download ADD COLUMN cause INTEGER NOT NULL DEFAULT 0;
CREATE INDEX record_by_kind ON record (day, kind) WHERE kind >= 5;
