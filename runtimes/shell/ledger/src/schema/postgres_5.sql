-- As SQLite's version 6.
CREATE TABLE evidence (
    download BYTEA PRIMARY KEY,
    day      BIGINT NOT NULL
);
INSERT INTO evidence SELECT download, MIN(day) FROM record WHERE download IS NOT NULL GROUP BY download;
ALTER TABLE record DROP COLUMN reporter;
ALTER TABLE record DROP COLUMN version;
ALTER TABLE record DROP COLUMN seq;
