-- Version 5. Where clients were, as far as geolocation knows; sums of closed days; records that are set aside.
-- Country and network of the downloader, `DE/64500`, and bytes by those of the uploaders, as JSON; empty: not known.
ALTER TABLE download ADD COLUMN spot TEXT NOT NULL DEFAULT '';
ALTER TABLE download ADD COLUMN sources TEXT NOT NULL DEFAULT '';

-- Where a client was at a login.
CREATE TABLE place (
    guid     BLOB NOT NULL,
    since_ms INTEGER NOT NULL,
    -- when it came: forgotten with the records
    day      INTEGER NOT NULL,
    spot     TEXT NOT NULL,
    PRIMARY KEY (guid, since_ms)
) WITHOUT ROWID, STRICT;

-- What the lines of a closed day come to, by object, as JSON; never changed.
CREATE TABLE rollup (
    provider INTEGER NOT NULL,
    day      INTEGER NOT NULL,
    path     TEXT NOT NULL,
    body     TEXT NOT NULL,
    PRIMARY KEY (provider, day, path)
) WITHOUT ROWID, STRICT;
-- Whether the day's rollups are there: days that were closed before this version get them later.
ALTER TABLE day ADD COLUMN rolled INTEGER NOT NULL DEFAULT 0;

-- Records that the database refuses whatever is tried: evidence, counted nowhere.
CREATE TABLE set_aside (
    id          BLOB PRIMARY KEY,
    day         INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    why         TEXT NOT NULL,
    body        BLOB NOT NULL
) WITHOUT ROWID, STRICT;
