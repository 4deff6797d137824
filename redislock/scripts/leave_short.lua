-- The shortest ways of leave.lua: nothing else is in the queue, so that it does not matter who comes next, or
-- a living entry is next. Whether the session still lives does not matter either: the key was not granted to another.
if ARGV[4] ~= '1' then
  local session, entry, key = ARGV[1], ARGV[2], ARGV[3]
  local v = redis.call('HMGET', hash, 'q:' .. key, 'fence', 'quiet', 'life')
  local queue = v[1]
  if queue == entry then
    redis.call('HDEL', hash, 'q:' .. key, 'g:' .. key, 'w:' .. key)
    return {'ok', '1'}
  end
  if queue and string.sub(queue, 1, #entry + 1) == entry .. ' ' and same(v[4]) then
    local us = now()
    local rest = string.sub(queue, #entry + 2)
    local head, waiter, attempt = string.match(rest, '^(([^:]+):(%d+)w?)')
    if tonumber(v[3] or 0) * 1000 <= us and tonumber(redis.call('ZSCORE', sessions, waiter) or 0) * 1000 > us then
      local epoch = string.format('%.0f', math.max(tonumber(v[2]) + 1, us))
      redis.call('HSET', hash, 'fence', epoch, 'g:' .. key, epoch, 'q:' .. key, rest)
      redis.call(cluster and 'SPUBLISH' or 'PUBLISH', channel(waiter),
        'granted ' .. epoch .. ' ' .. attempt .. (rest == head and '' or ' 1'))
      return {'ok', '1'}
    end
  end
end
