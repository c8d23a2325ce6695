-- Version 9. Number of changes, which the mark beside the file also has, so that the loss of the file's log is noticed.
CREATE TABLE written (n INTEGER NOT NULL) STRICT;
INSERT INTO written VALUES (1);
