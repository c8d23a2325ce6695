-- Version 1. Records are stored unchanged, each id once; queries compute everything from them.
CREATE TABLE record (
    id          BLOB PRIMARY KEY,
    -- 1 usage of a downloader, 2 usage of an uploader, 3 edge, 4 first grant
    kind        INTEGER NOT NULL,
    -- NULL for an edge's plain HTTP traffic
    download    BLOB,
    -- GUID of the client, or key of the edge
    reporter    BLOB NOT NULL,
    version     BLOB NOT NULL,
    seq         INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    body        BLOB NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX record_by_download ON record (download, kind, reporter, seq);

-- The first grant of each download, by the provider that pays.
CREATE TABLE download (
    download  BLOB PRIMARY KEY,
    provider  INTEGER NOT NULL,
    path      TEXT NOT NULL,
    issued_ms INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX download_by_object ON download (provider, path, issued_ms);
