-- Returns the epoch with which the head of a queue holds its key, '' if it does not, and the living entries.
-- ARGV    …, key
local v = redis.call('HMGET', hash, 'q:' .. ARGV[4], 'g:' .. ARGV[4])
local reply = {v[2] or ''}
for entry in string.gmatch(v[1] or '', '%S+') do
  if alive(entry) then
    reply[#reply + 1] = entry
  elseif #reply == 1 then
    reply[1] = '' -- the head is dead, and who comes next has yet to ask
  end
end
return reply
