DROP INDEX furthest ON read_marks;
