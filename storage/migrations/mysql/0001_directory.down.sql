-- Devices are lost for good; everything else can be rebuilt from the logs.
DROP TABLE shards;
DROP TABLE devices;
DROP TABLE read_marks;
DROP TABLE members;
DROP TABLE conversations;
