-- Arguments too long to stand in the row that look-ups and outcomes touch.
INSERT INTO _scheduled_arguments (id, args) VALUES (?1, ?2);
