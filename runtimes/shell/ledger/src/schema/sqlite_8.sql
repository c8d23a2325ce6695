-- Version 8. Time until which clients' records of a download count, Unix ms; for open rows the latest possible time.
-- Replaced records name no download any more, so that they are not read again. Providers with their first days.
ALTER TABLE download ADD COLUMN closes_ms INTEGER NOT NULL DEFAULT 0;
UPDATE download SET closes_ms =
    CASE WHEN state < 2
         THEN (SELECT COALESCE(MIN(received_ms), 0) FROM record WHERE record.download = download.download) + 2592000000
         ELSE (SELECT COALESCE(MAX(received_ms), 0) FROM record WHERE record.download = download.download) + 86400000
    END
    WHERE day > (SELECT COALESCE(MAX(closed.day), -1) FROM day AS closed);

CREATE TABLE provider (
    provider INTEGER PRIMARY KEY,
    -- the provider's first day with a statement
    since    INTEGER NOT NULL
) STRICT;
INSERT INTO provider SELECT provider, MIN(day) FROM statement GROUP BY provider;
