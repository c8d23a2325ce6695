-- Version 5. Locations of clients; rollups of closed days; records that were set aside.
-- Country and network of the downloader, `DE/64500`, and bytes by those of the uploaders, as JSON; empty: unknown.
ALTER TABLE download ADD COLUMN spot TEXT NOT NULL DEFAULT '';
ALTER TABLE download ADD COLUMN sources TEXT NOT NULL DEFAULT '';

-- Location of a client at a login.
CREATE TABLE place (
    guid     BLOB NOT NULL,
    since_ms INTEGER NOT NULL,
    -- day of arrival: the row is deleted with that day's records
    day      INTEGER NOT NULL,
    spot     TEXT NOT NULL,
    PRIMARY KEY (guid, since_ms)
) WITHOUT ROWID, STRICT;

-- Sums of a closed day's download rows by object, as JSON; never changed.
CREATE TABLE rollup (
    provider INTEGER NOT NULL,
    day      INTEGER NOT NULL,
    path     TEXT NOT NULL,
    body     TEXT NOT NULL,
    PRIMARY KEY (provider, day, path)
) WITHOUT ROWID, STRICT;
-- Whether the day's rollups are stored: days closed before this version get them later.
ALTER TABLE day ADD COLUMN rolled INTEGER NOT NULL DEFAULT 0;

-- Records that the database refuses to store: kept as evidence, and not billed.
CREATE TABLE set_aside (
    id          BLOB PRIMARY KEY,
    day         INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    why         TEXT NOT NULL,
    body        BLOB NOT NULL
) WITHOUT ROWID, STRICT;
