-- What this commit wrote, for those who follow.
INSERT INTO _changes (time, written) VALUES (?1, ?2);
