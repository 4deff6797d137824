-- Returns the epoch with which the head of a queue holds its key, '' if it does not, and of the living entries,
-- at most as many as are asked for, the name and which process it is, in turns.
-- ARGV    key, how many
local v = redis.call('HMGET', hash, 'q:' .. ARGV[1], 'g:' .. ARGV[1])
local reply, most = {v[2] or ''}, 1 + 2 * tonumber(ARGV[2])
for entry in string.gmatch(v[1] or '', '%S+') do
  if #reply >= most then
    break
  end
  if alive(entry) then
    reply[#reply + 1] = entry
    reply[#reply + 1] = redis.call('HGET', hash, 'p:' .. string.match(entry, '^[^:]+')) or ''
  elseif #reply == 1 then
    reply[1] = '' -- the head is dead, and who comes next has yet to ask
  end
end
return reply
