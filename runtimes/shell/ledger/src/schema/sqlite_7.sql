-- Version 7. Which GUID took which other's place, as clients sign it when they take another key: quarantine follows.
CREATE TABLE successor (
    guid  BLOB NOT NULL,
    next  BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (guid, next)
) WITHOUT ROWID, STRICT;
