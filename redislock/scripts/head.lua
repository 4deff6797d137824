-- What all scripts begin with. A bucket is a hash and a sorted set.
--
-- The hash has the fields
--   life        the run ID of the server that the bucket was last used on
--   quiet       until when nothing is granted, in ms
--   fence       the last epoch
--   q:<key>     the entries in the queue of the key, separated by spaces; the first is the head
--   g:<key>     the epoch with which the head holds the key; missing while nothing is granted
--   x:<entry>   an entry that has left, and must not be entered by a request that comes late
--   scan, bound of a sweep that is under way: where it is, and when it began
-- The sorted set has the sessions by their deadlines, in ms by the clock of this server.
--
-- KEYS    the hash, the sorted set
-- ARGV    the quarantine in ms, 0 for none; the prefix of channels; '1' in a cluster; and what each script adds
local hash, sessions = KEYS[1], KEYS[2]
local quarantine, prefix, cluster = tonumber(ARGV[1]), ARGV[2], ARGV[3] == '1'
