-- What every script needs that does more than the shortest.
local us = now()
local ms = math.floor(us / 1000)

local function text(n) return string.format('%.0f', n) end

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
