-- Removes the holder of a key from the queue.
-- ARGV    key, the epoch with which it is held
-- Returns {'ok', '1' if it was held so}.
local key = ARGV[1]
local fence, quiet, queue, epoch = read('q:' .. key, 'g:' .. key)
if not queue or epoch ~= ARGV[2] then
  return {'ok', '0'}
end
local head = string.match(queue, '^%S+')
settle(key, string.sub(queue, #head + 2), nil, '', fence, quiet)
return {'ok', '1'}
