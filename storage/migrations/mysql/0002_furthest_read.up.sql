-- The furthest cursor of a conversation is one row of this key, however many read it.
CREATE INDEX furthest ON read_marks (log, seq);
