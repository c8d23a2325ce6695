-- Version 1. Records are kept as they came, each id once; what is asked for is computed from them.
CREATE TABLE record (
    id          BLOB PRIMARY KEY,
    -- 1 usage of a downloader, 2 usage of an uploader, 3 edge, 4 first grant
    kind        INTEGER NOT NULL,
    -- none for an edge's plain HTTP traffic
    download    BLOB,
    -- GUID or edge key
    reporter    BLOB NOT NULL,
    version     BLOB NOT NULL,
    seq         INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    body        BLOB NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX record_by_download ON record (download, kind, reporter, seq);

-- Downloads by who pays: the first grant of each.
CREATE TABLE download (
    download  BLOB PRIMARY KEY,
    provider  INTEGER NOT NULL,
    path      TEXT NOT NULL,
    issued_ms INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX download_by_object ON download (provider, path, issued_ms);
