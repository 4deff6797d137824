-- The scripts of an engine. Each is made of sections, which begin with a line that names them: of an
-- engine's settings, head, most of bucket, and then its own. newScripts puts them together.

---- head
-- What all scripts begin with, after a line of an engine's settings: the quarantine in ms, 0 for none, what the
-- names of channels begin with, and whether this is a cluster. A bucket is a hash and a sorted set.
--
-- The hash has the fields
--   life        the run ID of the server that the bucket was last used on
--   quiet       until when nothing is granted, in ms
--   fence       the last epoch
--   q:<key>     the entries in the queue of the key, separated by spaces; the first is the head. An entry is a session, a
--               colon, a number, and w if it is told when it holds the key and another waits
--   g:<key>     the epoch with which the head holds the key; missing while nothing is granted
--   w:<key>     the last holder that asked for that later
--   x:<entry>   an entry that has left, and must not be entered by a request that comes late
--   p:<session> which process it is, for people
--   scan, bound of a sweep that is under way: where it is, and when it began
-- The sorted set has the sessions by their deadlines, in ms by the clock of this server.
--
-- KEYS    the hash, the sorted set
-- ARGV    what each script says
local hash, sessions = KEYS[1], KEYS[2]

-- The channel of a session: in a cluster each bucket has its own.
local function channel(session)
  if cluster then
    return string.sub(hash, 1, -6) .. session -- without "locks"
  end
  return prefix .. session
end

-- now returns the clock in microseconds, exactly: a double counts them until 2255.
local function now()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

-- about returns a section of what the server says of itself; nil if the user may not see it.
local function about(section)
  local info = redis.pcall('INFO', section)
  return type(info) == 'string' and info or nil
end

-- same reports whether this server is still the one that the bucket was last used on.
local function same(life)
  local server = life and about('server')
  return server and string.find(server, 'run_id:' .. life, 1, true)
end

---- bucket
-- What every script needs that does more than the shortest.
local us = now()
local ms = math.floor(us / 1000)

local function text(n) return string.format('%.0f', n) end

-- clustered reports whether the server is in a cluster, as far as the user may see it.
local function clustered()
  local server = about('server')
  return server and string.find(server, 'redis_mode:cluster', 1, true)
end

-- free comes before the other writes of a script that must not fail when the memory of the server is full: the server then
-- refuses a write that may need more, but only as the first write of a script. This one needs none, and removes nothing.
local function free()
  redis.call('HDEL', hash, 'none')
end

-- read returns the fence and the end of the quarantine, and after them the fields that are asked for. On a
-- server that was started or promoted since the bucket was last used, or whose bucket is gone, grants may be
-- missing, and what was released may be back: every session ends, and nothing is granted until no process
-- can believe in an old one. Without a quarantine the user need not be permitted to ask for the run ID.
local function read(...)
  local v = redis.call('HMGET', hash, 'fence', 'quiet', 'life', ...)
  local fence = tonumber(v[1] or '0')
  if same(v[3]) then
    return fence, tonumber(v[2] or '0'), unpack(v, 4)
  end
  local info = (quarantine > 0 and redis.call or redis.pcall)('INFO', 'server')
  local life = type(info) == 'string' and string.match(info, 'run_id:(%x+)')
  if life then
    redis.call('UNLINK', hash, sessions)
    local quiet = ms + quarantine
    redis.call('HSET', hash, 'fence', text(fence), 'quiet', text(quiet), 'life', life)
    return fence, quiet
  end
  return fence, tonumber(v[2] or '0'), unpack(v, 4)
end

-- deadline returns when a session ends, nil if it is unknown.
local function deadline(session)
  return tonumber(redis.call('ZSCORE', sessions, session) or nil)
end

local known = {}
local function alive(entry)
  local session = string.match(entry, '^[^:]+')
  if known[session] == nil then
    known[session] = (deadline(session) or 0) > ms
  end
  return known[session]
end

-- tell sends a notice to the process of an entry: a word, an epoch, the number of the entry and, with a grant, '1' if others wait.
local function tell(entry, word, epoch, others)
  local session, attempt = string.match(entry, '^([^:]+):(%d+)')
  local notice = word .. ' ' .. epoch .. ' ' .. attempt .. (others and ' 1' or '')
  redis.call(cluster and 'SPUBLISH' or 'PUBLISH', channel(session), notice)
end

-- settle stores the queue of a key with the epoch with which its head holds the key, nil if it does not.
-- It removes dead heads, and grants the key to the head if nothing forbids it: its process is told,
-- unless it is the entry that asks. It returns the queue and the epoch.
local function settle(key, queue, epoch, asks, fence, quiet)
  local head = string.match(queue, '^%S+')
  while head and not alive(head) do
    queue = string.sub(queue, #head + 2)
    epoch = nil
    head = string.match(queue, '^%S+')
  end
  if not head then
    redis.call('HDEL', hash, 'q:' .. key, 'g:' .. key, 'w:' .. key)
    return '', nil
  end
  if epoch then
    redis.call('HSET', hash, 'q:' .. key, queue)
    return queue, epoch
  end
  if ms < quiet then
    redis.call('HSET', hash, 'q:' .. key, queue)
    redis.call('HDEL', hash, 'g:' .. key)
    return queue, nil
  end
  fence = math.max(fence + 1, us)
  epoch = text(fence)
  redis.call('HSET', hash, 'fence', epoch, 'g:' .. key, epoch, 'q:' .. key, queue)
  if head ~= asks then
    tell(head, 'granted', epoch, #queue > #head)
  end
  return queue, epoch, fence
end

-- sweep looks at a part of the bucket for what sessions that have ended left behind, and returns whether
-- more is to be looked at. Sessions stay known until all of their entries are gone.
local function sweep(fence, quiet, anew)
  local v = redis.call('HMGET', hash, 'scan', 'bound')
  local scan, bound = v[1], tonumber(v[2] or '0')
  if anew or not scan then
    if redis.call('ZCOUNT', sessions, '-inf', text(ms - 1)) == 0 then
      return false
    end
    scan, bound = '0', ms
  end
  local found = redis.call('HSCAN', hash, scan, 'MATCH', '[pqx]:*', 'COUNT', '1000')
  for i = 1, #found[2], 2 do
    local field, value = found[2][i], found[2][i + 1]
    local name = string.sub(field, 3)
    if string.sub(field, 1, 2) ~= 'q:' then -- of an entry or of a session
      if not alive(name) then
        redis.call('HDEL', hash, field)
      end
    else
      local kept = {}
      for entry in string.gmatch(value, '%S+') do
        if alive(entry) then
          kept[#kept + 1] = entry
        end
      end
      local queue = table.concat(kept, ' ')
      if queue ~= value then
        local epoch = redis.call('HGET', hash, 'g:' .. name) or nil
        if kept[1] ~= string.match(value, '^%S+') then
          epoch = nil
        end
        local _, _, last = settle(name, queue, epoch, '', fence, quiet)
        fence = last or fence
      end
    end
  end
  if found[1] == '0' then
    redis.call('ZREMRANGEBYSCORE', sessions, '-inf', text(bound - 1))
    redis.call('HDEL', hash, 'scan', 'bound')
    return false
  end
  redis.call('HSET', hash, 'scan', found[1], 'bound', text(bound))
  return true
end

---- begin
-- Opens the bucket, and begins or prolongs a session in it.
-- ARGV    session, its TTL in ms or 0 for no session, which process it is
-- Returns {'ok', '1' in a cluster}, or {'evicts', the policy} if the server may remove what it is to keep.
local memory = about('memory')
if memory then
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
return {'ok', clustered() and '1' or '0'}

---- renew
-- Prolongs a session that has not ended.
-- ARGV    session, its TTL in ms, then keys and the epochs with which they are held
-- Returns {'gone'}, or {'ok', the positions of those that are not held so any more}.
local fence, quiet = read()
if (deadline(ARGV[1]) or 0) <= ms then
  return {'gone'}
end
free()
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

---- enter at once
-- The shortest ways of enter: the key is free, or a living entry holds it. An entry that has to wait is granted
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

---- enter
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

---- leave at once
-- The shortest ways of leave: nothing else is in the queue, so that it does not matter who comes next, or
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
      local stored = redis.pcall('HSET', hash, 'fence', epoch, 'g:' .. key, epoch, 'q:' .. key, rest)
      if type(stored) == 'number' then -- else the memory may be full
        redis.call(cluster and 'SPUBLISH' or 'PUBLISH', channel(waiter),
          'granted ' .. epoch .. ' ' .. attempt .. (rest == head and '' or ' 1'))
        return {'ok', '1'}
      end
    end
  end
end

---- leave
-- Removes an entry from its queue.
-- ARGV    session, entry, key, '1' if a request to enter it may come late
-- Returns {'ok', '1' if it was there}, or {'gone'}.
local session, entry, key = ARGV[1], ARGV[2], ARGV[3]
local fence, quiet, queue, epoch = read('q:' .. key, 'g:' .. key)
if (deadline(session) or 0) <= ms then
  return {'gone'}
end
free()
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

---- warn
-- Has the process of an entry that holds its key told when another comes to wait for it.
-- ARGV    entry, key
-- Returns {'ok', '1' if another waits already, or if the entry does not hold the key}.
local entry, key = ARGV[1], ARGV[2]
if redis.call('HGET', hash, 'q:' .. key) ~= entry then
  return {'ok', '1'}
end
redis.call('HSET', hash, 'w:' .. key, entry)
return {'ok', '0'}

---- end
-- Ends a session and begins to remove its entries.
-- ARGV    session
-- Returns {'ok'} when all are gone, or {'more'} if it has to be called again.
local fence, quiet = read()
local ends = deadline(ARGV[1])
if not ends then
  return {'ok'}
end
free()
local anew = ends > ms - 1
if anew then
  redis.call('ZADD', sessions, text(ms - 1), ARGV[1])
end
if sweep(fence, quiet, anew) then
  return {'more'}
end
return {deadline(ARGV[1]) and 'more' or 'ok'}

---- inspect
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

---- list
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

---- break
-- Removes the holder of a key from the queue.
-- ARGV    key, the epoch with which it is held
-- Returns {'ok', '1' if it was held so}.
local key = ARGV[1]
if about('server') and not same(redis.call('HGET', hash, 'life')) then
  return {'ok', '0'} -- it is lost already, and how long nothing is granted now is not for an operator to set
end
cluster = clustered()
local fence, quiet, queue, epoch = read('q:' .. key, 'g:' .. key)
if not queue or epoch ~= ARGV[2] then
  return {'ok', '0'}
end
free()
local head = string.match(queue, '^%S+')
settle(key, string.sub(queue, #head + 2), nil, '', fence, quiet)
return {'ok', '1'}
