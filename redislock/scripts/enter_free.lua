-- The shortest way of enter.lua: the key is free, and nothing forbids the grant.
do
  local v = redis.call('HMGET', hash, 'fence', 'quiet', 'life', 'q:' .. ARGV[6], 'x:' .. ARGV[5])
  local info = v[3] and not v[4] and not v[5] and redis.pcall('INFO', 'server')
  if type(info) == 'string' and string.find(info, 'run_id:' .. v[3], 1, true) then
    local t = redis.call('TIME')
    local us = tonumber(t[1]) * 1000000 + tonumber(t[2])
    if tonumber(v[2] or 0) * 1000 <= us and tonumber(redis.call('ZSCORE', sessions, ARGV[4]) or 0) * 1000 > us then
      local epoch = string.format('%.0f', math.max(tonumber(v[1]) + 1, us))
      redis.call('HSET', hash, 'fence', epoch, 'g:' .. ARGV[6], epoch, 'q:' .. ARGV[6], ARGV[5])
      return {'granted', epoch, '0'}
    end
  end
end
