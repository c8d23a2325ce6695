-- Version 9. How many changes were made: the mark beside the file knows too, so that a file whose log was lost is noticed.
CREATE TABLE written (n INTEGER NOT NULL) STRICT;
INSERT INTO written VALUES (1);
