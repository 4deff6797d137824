-- Has the process of an entry that holds its key told when another comes to wait for it.
-- ARGV    entry, key
-- Returns {'ok', '1' if another waits already, or if the entry does not hold the key}.
local entry, key = ARGV[1], ARGV[2]
if redis.call('HGET', hash, 'q:' .. key) ~= entry then
  return {'ok', '1'}
end
redis.call('HSET', hash, 'w:' .. key, entry)
return {'ok', '0'}
