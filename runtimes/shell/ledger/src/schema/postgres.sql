-- Tables of a ledger in PostgreSQL; the columns are explained in `sqlite.sql`. Records are partitioned by day of arrival;
-- ids have a table of their own, since a unique key of a partitioned table would have to contain the day.
CREATE TABLE ledger_version (version BIGINT PRIMARY KEY);

CREATE TABLE record_id (
    id  BYTEA PRIMARY KEY,
    day BIGINT NOT NULL
);

CREATE TABLE record (
    id          BYTEA NOT NULL,
    day         BIGINT NOT NULL,
    kind        BIGINT NOT NULL,
    download    BYTEA,
    received_ms BIGINT NOT NULL,
    body        BYTEA NOT NULL
) PARTITION BY RANGE (day);
CREATE INDEX record_by_download ON record (download);
CREATE INDEX record_by_kind ON record (day, kind) WHERE kind >= 5;

CREATE TABLE evidence (
    download BYTEA PRIMARY KEY,
    day      BIGINT NOT NULL
);

CREATE TABLE set_aside (
    id          BYTEA PRIMARY KEY,
    day         BIGINT NOT NULL,
    received_ms BIGINT NOT NULL,
    why         TEXT NOT NULL,
    body        BYTEA NOT NULL
);

CREATE TABLE download (
    download       BYTEA PRIMARY KEY,
    provider       BIGINT NOT NULL,
    day            BIGINT NOT NULL,
    path           TEXT NOT NULL,
    version        BYTEA NOT NULL,
    guid           BYTEA NOT NULL,
    size           BIGINT NOT NULL,
    issued_ms      BIGINT NOT NULL,
    state          BIGINT NOT NULL,
    elapsed_ms     BIGINT NOT NULL,
    edge_unique    BIGINT NOT NULL,
    edge_total     BIGINT NOT NULL,
    edge_claimed   BIGINT NOT NULL,
    peers_received BIGINT NOT NULL,
    peers_sent     BIGINT NOT NULL,
    peers_billed   BIGINT NOT NULL,
    flagged        BIGINT NOT NULL,
    speed          BIGINT NOT NULL,
    evidence       BYTEA NOT NULL,
    cause          BIGINT NOT NULL,
    max_peer_bytes BIGINT NOT NULL,
    spot           TEXT NOT NULL,
    sources        TEXT NOT NULL,
    closes_ms      BIGINT NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX download_by_provider ON download (provider, day);
CREATE INDEX download_by_day ON download (day);

CREATE TABLE plain (
    provider BIGINT NOT NULL,
    day      BIGINT NOT NULL,
    version  BYTEA NOT NULL,
    edge     BYTEA NOT NULL,
    bytes    BIGINT NOT NULL,
    total    BIGINT NOT NULL,
    PRIMARY KEY (edge, version, day)
);
CREATE INDEX plain_by_day ON plain (day, provider);

CREATE TABLE quarantine (
    guid     BYTEA NOT NULL,
    from_ms  BIGINT NOT NULL,
    until_ms BIGINT,
    reason   TEXT NOT NULL,
    PRIMARY KEY (guid, from_ms)
);

CREATE TABLE successor (
    guid  BYTEA NOT NULL,
    next  BYTEA NOT NULL,
    at_ms BIGINT NOT NULL,
    PRIMARY KEY (guid, next)
);

CREATE TABLE place (
    guid     BYTEA NOT NULL,
    since_ms BIGINT NOT NULL,
    day      BIGINT NOT NULL,
    spot     TEXT NOT NULL,
    PRIMARY KEY (guid, since_ms)
);
CREATE INDEX place_by_day ON place (day);

CREATE TABLE day (
    day       BIGINT PRIMARY KEY,
    leaf      BYTEA NOT NULL,
    head      BYTEA NOT NULL,
    closed_ms BIGINT NOT NULL
);

CREATE TABLE statement (
    day      BIGINT NOT NULL,
    position BIGINT NOT NULL,
    provider BIGINT NOT NULL,
    body     BYTEA NOT NULL,
    PRIMARY KEY (day, position)
);

CREATE TABLE provider (
    provider BIGINT PRIMARY KEY,
    since    BIGINT NOT NULL
);

CREATE TABLE rollup (
    provider BIGINT NOT NULL,
    day      BIGINT NOT NULL,
    path     TEXT NOT NULL,
    body     TEXT NOT NULL,
    PRIMARY KEY (provider, day, path)
);
