-- Tables of a ledger in SQLite. Days are counted from 1970-01-01 (UTC), times are Unix milliseconds.

-- Ids of all records, each once.
CREATE TABLE record_id (
    id  BLOB PRIMARY KEY,
    day INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

-- Records as they arrived.
CREATE TABLE record (
    id          BLOB NOT NULL,
    -- day of arrival
    day         INTEGER NOT NULL,
    -- number of the kind, see kind.rs
    kind        INTEGER NOT NULL,
    -- NULL for a record that settlement does not read: plain HTTP traffic, and records that were replaced or came late
    download    BLOB,
    received_ms INTEGER NOT NULL,
    body        BLOB NOT NULL
) STRICT;
CREATE INDEX record_by_download ON record (download);
CREATE INDEX record_by_kind ON record (day, kind) WHERE kind >= 5;

-- Day of a download's first record, so that no older records are searched for a new download.
CREATE TABLE evidence (
    download BLOB PRIMARY KEY,
    day      INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

-- Records that the database refuses to store: kept as evidence, and not billed.
CREATE TABLE set_aside (
    id          BLOB PRIMARY KEY,
    day         INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    why         TEXT NOT NULL,
    body        BLOB NOT NULL
) WITHOUT ROWID, STRICT;

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
    -- failure cause: 0 if it did not fail or gave none, else the cause's number on the wire
    cause          INTEGER NOT NULL,
    -- ceiling of billed peer bytes from the first grant
    max_peer_bytes INTEGER NOT NULL,
    -- country and network of the downloader, `DE/64500`; empty: unknown
    spot           TEXT NOT NULL,
    -- billed bytes by country and network of the uploaders, as JSON; empty: unknown
    sources        TEXT NOT NULL,
    -- time until which clients' records count; for open rows the latest possible time
    closes_ms      INTEGER NOT NULL,
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

-- Quarantines of clients.
CREATE TABLE quarantine (
    guid     BLOB NOT NULL,
    from_ms  INTEGER NOT NULL,
    -- NULL while the quarantine lasts
    until_ms INTEGER,
    reason   TEXT NOT NULL,
    PRIMARY KEY (guid, from_ms)
) WITHOUT ROWID, STRICT;

-- Links from old to new GUID, as clients sign them when they take a new key; quarantine follows them.
CREATE TABLE successor (
    guid  BLOB NOT NULL,
    next  BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (guid, next)
) WITHOUT ROWID, STRICT;

-- Location of a client at a login.
CREATE TABLE place (
    guid     BLOB NOT NULL,
    since_ms INTEGER NOT NULL,
    -- day of arrival: the row is deleted with that day's records
    day      INTEGER NOT NULL,
    spot     TEXT NOT NULL,
    PRIMARY KEY (guid, since_ms)
) WITHOUT ROWID, STRICT;

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

-- Providers that ever had a statement.
CREATE TABLE provider (
    provider INTEGER PRIMARY KEY,
    -- the provider's first day with a statement
    since    INTEGER NOT NULL
) STRICT;

-- Sums of a closed day's download rows by object, as JSON; never changed.
CREATE TABLE rollup (
    provider INTEGER NOT NULL,
    day      INTEGER NOT NULL,
    path     TEXT NOT NULL,
    body     TEXT NOT NULL,
    PRIMARY KEY (provider, day, path)
) WITHOUT ROWID, STRICT;

-- Number of changes, which the mark beside the file also has, so that the loss of the file's log is noticed.
CREATE TABLE written (n INTEGER NOT NULL) STRICT;
INSERT INTO written VALUES (1);
