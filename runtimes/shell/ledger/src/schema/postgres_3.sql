-- As SQLite's version 4.
ALTER TABLE download ADD COLUMN max_peer_bytes BIGINT NOT NULL DEFAULT 9223372036854775807;

CREATE TABLE quarantine (
    guid     BYTEA NOT NULL,
    from_ms  BIGINT NOT NULL,
    until_ms BIGINT,
    reason   TEXT NOT NULL,
    PRIMARY KEY (guid, from_ms)
);
