-- Opens the bucket, and begins or prolongs a session in it.
-- ARGV    session, its TTL in ms or 0 for no session, which process it is
-- Returns {'ok', '1' in a cluster}, or {'evicts', the policy} if the server may remove what it is to keep.
local memory = redis.pcall('INFO', 'memory')
if type(memory) == 'string' then -- else the user may not see it
  local policy = string.match(memory, 'maxmemory_policy:([%w-]+)')
  if policy and string.find(policy, '^allkeys') and not string.find(memory, 'maxmemory:0%s') then
    return {'evicts', policy}
  end
end
read()
local ttl = tonumber(ARGV[2])
if ttl > 0 then
  redis.call('ZADD', sessions, text(ms + ttl), ARGV[1])
  redis.call('HSET', hash, 'p:' .. ARGV[1], ARGV[3])
end
local server = redis.pcall('INFO', 'server')
local mode = type(server) == 'string' and string.find(server, 'redis_mode:cluster', 1, true)
return {'ok', mode and '1' or '0'}
