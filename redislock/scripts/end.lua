-- Ends a session and begins to remove its entries.
-- ARGV    session
-- Returns {'ok'} when all are gone, or {'more'} if it has to be called again.
local fence, quiet = read()
local ends = deadline(ARGV[1])
if not ends then
  return {'ok'}
end
local anew = ends > ms - 1
if anew then
  redis.call('ZADD', sessions, text(ms - 1), ARGV[1])
end
if sweep(fence, quiet, anew) then
  return {'more'}
end
return {deadline(ARGV[1]) and 'more' or 'ok'}
