-- Version 4. Ceiling of billed peer bytes from the first grant, at most the size, so that older rows need no other
-- value.
-- Quarantines of clients, with start and end.
ALTER TABLE download ADD COLUMN max_peer_bytes INTEGER NOT NULL DEFAULT 9223372036854775807;

CREATE TABLE quarantine (
    guid     BLOB NOT NULL,
    from_ms  INTEGER NOT NULL,
    -- NULL while the quarantine lasts
    until_ms INTEGER,
    reason   TEXT NOT NULL,
    PRIMARY KEY (guid, from_ms)
) WITHOUT ROWID, STRICT;
