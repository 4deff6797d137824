-- Ends a session and begins to remove its entries.
-- ARGV    …, session
-- Returns {'ok'} when all are gone, or {'more'} if it has to be called again.
local fence, quiet = read()
local ends = deadline(ARGV[4])
if not ends then
  return {'ok'}
end
local anew = ends > ms - 1
if anew then
  redis.call('ZADD', sessions, text(ms - 1), ARGV[4])
end
if sweep(fence, quiet, anew) then
  return {'more'}
end
return {deadline(ARGV[4]) and 'more' or 'ok'}
