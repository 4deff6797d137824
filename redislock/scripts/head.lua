-- What all scripts begin with, after a line of an engine's settings: the quarantine in ms, 0 for none, what the
-- names of channels begin with, and whether this is a cluster. A bucket is a hash and a sorted set.
--
-- The hash has the fields
--   life        the run ID of the server that the bucket was last used on
--   quiet       until when nothing is granted, in ms
--   fence       the last epoch
--   q:<key>     the entries in the queue of the key, separated by spaces; the first is the head. An entry is a session, a
--               colon, a number, and w if it is told when it holds the key and another waits
--   g:<key>     the epoch with which the head holds the key; missing while nothing is granted
--   w:<key>     the last holder that asked for that later
--   x:<entry>   an entry that has left, and must not be entered by a request that comes late
--   p:<session> which process it is, for people
--   scan, bound of a sweep that is under way: where it is, and when it began
-- The sorted set has the sessions by their deadlines, in ms by the clock of this server.
--
-- KEYS    the hash, the sorted set
-- ARGV    what each script says
local hash, sessions = KEYS[1], KEYS[2]

-- The channel of a session: in a cluster each bucket has its own.
local function channel(session)
  if cluster then
    return string.sub(hash, 1, -6) .. session -- without "locks"
  end
  return prefix .. session
end

-- now returns the clock in microseconds, exactly: a double counts them until 2255.
local function now()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

-- same reports whether this server is still the one that the bucket was last used on.
local function same(life)
  local info = life and redis.pcall('INFO', 'server')
  return type(info) == 'string' and string.find(info, 'run_id:' .. life, 1, true)
end
