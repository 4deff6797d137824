-- The shortest ways of enter.lua: the key is free, or a living entry holds it. An entry that has to wait is granted
-- nothing, so which server this is does not matter yet.
do
  local session, entry, key = ARGV[1], ARGV[2], ARGV[3]
  local v = redis.call('HMGET', hash, 'fence', 'quiet', 'life', 'q:' .. key, 'g:' .. key, 'x:' .. entry, 'w:' .. key)
  local queue = v[4]
  if not v[6] and (queue and v[5] and ARGV[4] == '0' or not queue and same(v[3])) then
    local us = now()
    if tonumber(v[2] or 0) * 1000 <= us and tonumber(redis.call('ZSCORE', sessions, session) or 0) * 1000 > us then
      if not queue then
        local epoch = string.format('%.0f', math.max(tonumber(v[1]) + 1, us))
        redis.call('HSET', hash, 'fence', epoch, 'g:' .. key, epoch, 'q:' .. key, entry)
        return {'granted', epoch, '0'}
      end
      local head, holder, attempt, warned = string.match(queue, '^(([^:]+):(%d+)(w?))')
      local ends = tonumber(redis.call('ZSCORE', sessions, holder) or 0)
      if ends * 1000 > us and not string.find(' ' .. queue .. ' ', ' ' .. entry .. ' ', 1, true) then
        redis.call('HSET', hash, 'q:' .. key, queue .. ' ' .. entry)
        if queue == head and (warned == 'w' or v[7] == head) then -- otherwise it has been told, or does not want to be
          redis.call(cluster and 'SPUBLISH' or 'PUBLISH', channel(holder), 'wanted 0 ' .. attempt)
        end
        return {'waits', string.format('%.0f', ends - math.floor(us / 1000) + 1)}
      end
    end
  end
end
