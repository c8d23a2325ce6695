-- Version 2. Ids apart from records; a row of settled figures for each download; closed days.
ALTER TABLE record RENAME TO record_1;
ALTER TABLE download RENAME TO download_1;
DROP INDEX record_by_download;
DROP INDEX download_by_object;

-- Ids of all records, each once.
CREATE TABLE record_id (
    id  BLOB PRIMARY KEY,
    day INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

-- Records as they arrived.
CREATE TABLE record (
    id          BLOB NOT NULL,
    -- day of arrival, counted from 1970-01-01, UTC
    day         INTEGER NOT NULL,
    -- 1 usage of a downloader, 2 usage of an uploader, 3 edge, 4 first grant
    kind        INTEGER NOT NULL,
    -- NULL for an edge's plain HTTP traffic
    download    BLOB,
    -- GUID of the client, or key of the edge
    reporter    BLOB NOT NULL,
    version     BLOB NOT NULL,
    seq         INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    body        BLOB NOT NULL
) STRICT;
CREATE INDEX record_by_download ON record (download);

-- Settled figures of each granted download; never changed once its day is closed.
CREATE TABLE download (
    download       BLOB NOT NULL,
    provider       INTEGER NOT NULL,
    -- day of its first grant, or the first open day if that one was closed already
    day            INTEGER NOT NULL,
    path           TEXT NOT NULL,
    version        BLOB NOT NULL,
    guid           BLOB NOT NULL,
    size           INTEGER NOT NULL,
    issued_ms      INTEGER NOT NULL,
    -- 0 granted, 1 running, 2 completed, 3 cancelled, 4 failed
    state          INTEGER NOT NULL,
    elapsed_ms     INTEGER NOT NULL,
    edge_unique    INTEGER NOT NULL,
    edge_total     INTEGER NOT NULL,
    edge_claimed   INTEGER NOT NULL,
    peers_received INTEGER NOT NULL,
    peers_sent     INTEGER NOT NULL,
    peers_billed   INTEGER NOT NULL,
    flagged        INTEGER NOT NULL,
    -- speed class of a completed download, else -1
    speed          INTEGER NOT NULL,
    -- SHA-256 over the records that it was settled from
    evidence       BLOB NOT NULL,
    PRIMARY KEY (provider, day, download)
) WITHOUT ROWID, STRICT;
CREATE UNIQUE INDEX download_by_id ON download (download);
CREATE INDEX download_by_day ON download (day);

-- Plain HTTP traffic of a version from an edge, by day.
CREATE TABLE plain (
    provider INTEGER NOT NULL,
    day      INTEGER NOT NULL,
    version  BLOB NOT NULL,
    edge     BLOB NOT NULL,
    -- bytes sent on this day
    bytes    INTEGER NOT NULL,
    -- the edge's counter at the end of this day
    total    INTEGER NOT NULL,
    PRIMARY KEY (edge, version, day)
) WITHOUT ROWID, STRICT;
CREATE INDEX plain_by_day ON plain (day, provider);

-- Closed days, without gaps: the leaf in the log of days and the signed head.
CREATE TABLE day (
    day       INTEGER PRIMARY KEY,
    leaf      BLOB NOT NULL,
    head      BLOB NOT NULL,
    closed_ms INTEGER NOT NULL
) STRICT;

-- Statements of closed days, the leaves of their Merkle trees.
CREATE TABLE statement (
    day      INTEGER NOT NULL,
    position INTEGER NOT NULL,
    provider INTEGER NOT NULL,
    body     BLOB NOT NULL,
    PRIMARY KEY (day, position)
) WITHOUT ROWID, STRICT;
