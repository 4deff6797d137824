-- Puts an entry at the end of a queue, unless it is in it.
-- ARGV    session, entry, key, '1' to enter an empty queue only, '1' to write a grant again that stands already
-- Returns {'granted', epoch, '1' if others wait}, {'waits', ms until it should ask again}, {'gone'}, {'left'}, or
-- {'held', the epoch, the session, which process it is}, of the holder, if there is one.
local session, entry, key, try, again = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1', ARGV[5] == '1'
local fence, quiet, queue, epoch, left = read('q:' .. key, 'g:' .. key, 'x:' .. entry)
if (deadline(session) or 0) <= ms then
  return {'gone'}
end
if left then
  return {'left'}
end
queue, epoch = queue or '', epoch or nil
local inside = string.find(' ' .. queue .. ' ', ' ' .. entry .. ' ', 1, true)
local head = string.match(queue, '^%S+')
if head and not alive(head) or head and not epoch then
  local last
  queue, epoch, last = settle(key, queue, epoch, entry, fence, quiet)
  fence = last or fence
  head = string.match(queue, '^%S+')
end
if not inside then
  if try and (head or ms < quiet) then
    if not epoch then
      return {'held'}
    end
    tell(head, 'wanted', '0')
    local holder = string.match(head, '^[^:]+')
    return {'held', epoch, holder, redis.call('HGET', hash, 'p:' .. holder) or ''}
  end
  queue = head and queue .. ' ' .. entry or entry
  if head then
    redis.call('HSET', hash, 'q:' .. key, queue)
  else
    head = entry
    queue, epoch = settle(key, queue, nil, entry, fence, quiet)
  end
end
if not epoch then
  return {'waits', text(quiet - ms + 1)}
end
if head == entry then
  if again then
    redis.call('HSET', hash, 'g:' .. key, epoch)
  end
  return {'granted', epoch, #queue > #head and '1' or '0'}
end
tell(head, 'wanted', '0')
return {'waits', text(deadline(string.match(head, '^[^:]+')) - ms + 1)}
