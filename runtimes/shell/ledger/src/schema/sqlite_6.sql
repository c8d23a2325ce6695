-- Version 6. Since which day there are records of a download, so that those of one that is new are not looked for; what
-- nothing asks for is in the records themselves.
CREATE TABLE evidence (
    download BLOB PRIMARY KEY,
    day      INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
INSERT INTO evidence SELECT download, MIN(day) FROM record WHERE download IS NOT NULL GROUP BY download;
ALTER TABLE record DROP COLUMN reporter;
ALTER TABLE record DROP COLUMN version;
ALTER TABLE record DROP COLUMN seq;
