-- Removes an entry from its queue.
-- ARGV    session, entry, key, '1' if a request to enter it may come late
-- Returns {'ok', '1' if it was there}, or {'gone'}.
local session, entry, key = ARGV[1], ARGV[2], ARGV[3]
local fence, quiet, queue, epoch = read('q:' .. key, 'g:' .. key)
if (deadline(session) or 0) <= ms then
  return {'gone'}
end
if ARGV[4] == '1' then
  redis.call('HSET', hash, 'x:' .. entry, '')
end
queue = queue or ''
if queue == entry then
  redis.call('HDEL', hash, 'q:' .. key, 'g:' .. key, 'w:' .. key)
  return {'ok', '1'}
end
local kept, found = {}, false
for e in string.gmatch(queue, '%S+') do
  if e == entry then
    found = true
    if #kept == 0 then
      epoch = nil
    end
  else
    kept[#kept + 1] = e
  end
end
if not found then
  return {'ok', '0'}
end
settle(key, table.concat(kept, ' '), epoch or nil, '', fence, quiet)
return {'ok', '1'}
