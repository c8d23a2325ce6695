-- Version 6. Day of a download's first record, so that no older records are searched for a new download. Columns that
-- no
-- query uses are dropped; the records contain them.
CREATE TABLE evidence (
    download BLOB PRIMARY KEY,
    day      INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
INSERT INTO evidence SELECT download, MIN(day) FROM record WHERE download IS NOT NULL GROUP BY download;
ALTER TABLE record DROP COLUMN reporter;
ALTER TABLE record DROP COLUMN version;
ALTER TABLE record DROP COLUMN seq;
