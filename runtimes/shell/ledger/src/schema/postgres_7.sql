-- As SQLite's version 8.
ALTER TABLE download ADD COLUMN closes_ms BIGINT NOT NULL DEFAULT 0;
UPDATE download SET closes_ms =
    CASE WHEN state < 2
         THEN (SELECT COALESCE(MIN(received_ms), 0) FROM record WHERE record.download = download.download) + 2592000000
         ELSE (SELECT COALESCE(MAX(received_ms), 0) FROM record WHERE record.download = download.download) + 86400000
    END
    WHERE day > (SELECT COALESCE(MAX(closed.day), -1) FROM day AS closed);

CREATE TABLE provider (
    provider BIGINT PRIMARY KEY,
    since    BIGINT NOT NULL
);
INSERT INTO provider SELECT provider, MIN(day) FROM statement GROUP BY provider;
