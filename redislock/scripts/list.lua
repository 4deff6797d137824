-- Returns where to go on, '0' for the end, and of some keys, in turns: the key, the epoch with which its first
-- living entry holds it, '' if it does not, the entry's session and which process it is.
-- ARGV    where to go on, '0' at first
local found = redis.call('HSCAN', hash, ARGV[1], 'MATCH', 'q:*', 'COUNT', '500')
local reply = {found[1]}
for i = 1, #found[2], 2 do
  local key = string.sub(found[2][i], 3)
  local epoch = redis.call('HGET', hash, 'g:' .. key) or ''
  for entry in string.gmatch(found[2][i + 1], '%S+') do
    if alive(entry) then
      local session = string.match(entry, '^[^:]+')
      for _, value in ipairs({key, epoch, session, redis.call('HGET', hash, 'p:' .. session) or ''}) do
        reply[#reply + 1] = value
      end
      break
    end
    epoch = '' -- the head is dead, and who comes next has yet to ask
  end
end
return reply
