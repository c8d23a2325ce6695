-- Version 4. The most that peers may be billed for, as the first grant says: the size at most, so that lines from before
-- need no other. Who is quarantined, since when, and until when, once that is over.
ALTER TABLE download ADD COLUMN max_peer_bytes INTEGER NOT NULL DEFAULT 9223372036854775807;

CREATE TABLE quarantine (
    guid     BLOB NOT NULL,
    from_ms  INTEGER NOT NULL,
    -- none while it lasts
    until_ms INTEGER,
    reason   TEXT NOT NULL,
    PRIMARY KEY (guid, from_ms)
) WITHOUT ROWID, STRICT;
