-- As SQLite's version 7.
CREATE TABLE successor (
    guid  BYTEA NOT NULL,
    next  BYTEA NOT NULL,
    at_ms BIGINT NOT NULL,
    PRIMARY KEY (guid, next)
);
