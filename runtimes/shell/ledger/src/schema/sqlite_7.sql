-- Version 7. Links from old to new GUID, as clients sign them when they take a new key; quarantine follows them.
CREATE TABLE successor (
    guid  BLOB NOT NULL,
    next  BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (guid, next)
) WITHOUT ROWID, STRICT;
