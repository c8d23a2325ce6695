-- Version 8. Until when records of clients count, Unix milliseconds; of lines that are open now the latest that it may be.
-- Records that others have replaced are of no download any more, so that they are not read again. Who pays, since when.
ALTER TABLE download ADD COLUMN closes_ms INTEGER NOT NULL DEFAULT 0;
UPDATE download SET closes_ms =
    CASE WHEN state < 2
         THEN (SELECT COALESCE(MIN(received_ms), 0) FROM record WHERE record.download = download.download) + 2592000000
         ELSE (SELECT COALESCE(MAX(received_ms), 0) FROM record WHERE record.download = download.download) + 86400000
    END
    WHERE day > (SELECT COALESCE(MAX(closed.day), -1) FROM day AS closed);

CREATE TABLE provider (
    provider INTEGER PRIMARY KEY,
    -- its first day with a statement
    since    INTEGER NOT NULL
) STRICT;
INSERT INTO provider SELECT provider, MIN(day) FROM statement GROUP BY provider;
