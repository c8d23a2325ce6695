-- As SQLite's version 5.
ALTER TABLE download ADD COLUMN spot TEXT NOT NULL DEFAULT '';
ALTER TABLE download ADD COLUMN sources TEXT NOT NULL DEFAULT '';

CREATE TABLE place (
    guid     BYTEA NOT NULL,
    since_ms BIGINT NOT NULL,
    day      BIGINT NOT NULL,
    spot     TEXT NOT NULL,
    PRIMARY KEY (guid, since_ms)
);
CREATE INDEX place_by_day ON place (day);

CREATE TABLE rollup (
    provider BIGINT NOT NULL,
    day      BIGINT NOT NULL,
    path     TEXT NOT NULL,
    body     TEXT NOT NULL,
    PRIMARY KEY (provider, day, path)
);
ALTER TABLE day ADD COLUMN rolled BIGINT NOT NULL DEFAULT 0;

CREATE TABLE set_aside (
    id          BYTEA PRIMARY KEY,
    day         BIGINT NOT NULL,
    received_ms BIGINT NOT NULL,
    why         TEXT NOT NULL,
    body        BYTEA NOT NULL
);
