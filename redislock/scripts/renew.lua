-- Prolongs a session that has not ended.
-- ARGV    session, its TTL in ms, then keys and the epochs with which they are held
-- Returns {'gone'}, or {'ok', the positions of those that are not held so any more}.
local fence, quiet = read()
if (deadline(ARGV[1]) or 0) <= ms then
  return {'gone'}
end
redis.call('ZADD', sessions, 'XX', text(ms + tonumber(ARGV[2])), ARGV[1])
local reply = {'ok'}
local fields = {}
for i = 3, #ARGV, 2 do
  fields[#fields + 1] = 'g:' .. ARGV[i]
end
if #fields > 0 then
  local epochs = redis.call('HMGET', hash, unpack(fields))
  for i = 1, #fields do
    if epochs[i] ~= ARGV[2 + 2 * i] then
      reply[#reply + 1] = text(i - 1)
    end
  end
end
sweep(fence, quiet, false)
return reply
