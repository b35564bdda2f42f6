-- The directory: conversations, their members, read cursors, devices; and how far each shard of the logs is shown here.
--
-- Ids are compared byte by byte. Nothing is ever deleted. No foreign keys: a read cursor may be known before its
-- conversation is. members_count is the number of rows in members with left_seq NULL.

CREATE TABLE conversations (
    log VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    name TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    creator VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    peer VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
    applied_seq BIGINT UNSIGNED NOT NULL,
    members_count INT UNSIGNED NOT NULL,
    PRIMARY KEY (log)
) ENGINE = InnoDB;

CREATE TABLE members (
    log VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    user VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    joined_seq BIGINT UNSIGNED NOT NULL,
    joined_ordinal BIGINT UNSIGNED NOT NULL,
    left_seq BIGINT UNSIGNED NULL,
    PRIMARY KEY (log, user),
    KEY present (log, left_seq, user),
    KEY of_user (user, log)
) ENGINE = InnoDB;

CREATE TABLE read_marks (
    log VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    user VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    seq BIGINT UNSIGNED NOT NULL,
    ordinal BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (log, user)
) ENGINE = InnoDB;

CREATE TABLE devices (
    user VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    device VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    platform VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    PRIMARY KEY (user, device)
) ENGINE = InnoDB;

-- All 256 shards are here from the start.
CREATE TABLE shards (
    shard TINYINT UNSIGNED NOT NULL,
    fence BIGINT UNSIGNED NOT NULL,
    covered VARBINARY(255) NULL,
    PRIMARY KEY (shard)
) ENGINE = InnoDB;

INSERT INTO shards (shard, fence)
SELECT high.n * 16 + low.n, 0
FROM (SELECT 0 AS n UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5
      UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9 UNION ALL SELECT 10 UNION ALL SELECT 11
      UNION ALL SELECT 12 UNION ALL SELECT 13 UNION ALL SELECT 14 UNION ALL SELECT 15) AS high
CROSS JOIN
     (SELECT 0 AS n UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5
      UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9 UNION ALL SELECT 10 UNION ALL SELECT 11
      UNION ALL SELECT 12 UNION ALL SELECT 13 UNION ALL SELECT 14 UNION ALL SELECT 15) AS low;
