"""The Lua that runs inside Redis: each call is one round trip, and all or nothing to its readers.

Whatever an attacker or another program left under our names must not stop a script: a key of the wrong
type is deleted where we need it, a list entry that is no execution id is dropped and counted. Ids stay
strings in Lua, whose numbers are exact to 2^53 only. Commands take at most 1,000 members at a time, since
``unpack`` fails above about 8,000.

Redis 6.2 or newer, or Valkey (LPOP with a count). Key names are computed inside: no cluster mode.
"""

_ALWAYS = """
local function is_wrong_type(reply)
  return type(reply) == 'table' and reply.err ~= nil and string.find(reply.err, 'WRONGTYPE', 1, true) ~= nil
end
-- redis.call, but a key of the wrong type is deleted first. Any other error is raised by the second call,
-- which keeps its code (OOM, READONLY) on every version of the server.
local function sure(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or reply.err == nil then return reply end
  if is_wrong_type(reply) then redis.call('DEL', key) end
  return redis.call(command, key, ...)
end
local function is_id(value)
  return #value <= 19 and string.find(value, '^[1-9]%d*$') ~= nil
end
"""

# RQ's tools (`rq requeue`) stumble over a failed job without a hash, so a dead letter is given one.
_FILL = """
local function fill(job, id, queue, head, tail, failure_ttl)
  redis.call('HSET', job, 'status', 'failed', 'origin', queue, 'data', head .. id .. tail,
    'timeout', '-1', 'result_ttl', '60', 'failure_ttl', failure_ttl)
  redis.call('EXPIRE', job, failure_ttl)
end
"""

# ARGV: prefix, now (as RQ writes it), ttl, head and tail of the job's data, failure ttl,
# then for each queue: its name, its pool's channel, its ids in one text with commas between.
# A hash of eight fields that expires costs 9 µs by DEL, HSET and EXPIRE. All of one queue differ in one field alone:
# a copy of the first takes its place and its expiry, at half the cost.
PUSH = (
    _ALWAYS
    + """
local prefix, now, ttl, head, tail, failure_ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local jobs, results, at, channels, call = prefix .. ':job:', prefix .. ':results:', 7, {}, redis.call
while at <= #ARGV do
  local queue, channel, list = ARGV[at], ARGV[at + 1], prefix .. ':queue:' .. ARGV[at]
  local ids, left, n, first = {}, {}, 0, nil
  -- First of all, since a full server refuses a script only until its first write, and DEL is one
  sure('SADD', prefix .. ':queues', list)
  for id in string.gmatch(ARGV[at + 2], '%d+') do
    local job = jobs .. id
    if first and job ~= first then
      call('COPY', first, job, 'REPLACE')
      call('HSET', job, 'data', head .. id .. tail)
    else
      call('DEL', job)
      call('HSET', job, 'status', 'queued', 'origin', queue, 'created_at', now, 'enqueued_at', now,
        'timeout', '-1', 'result_ttl', '60', 'failure_ttl', failure_ttl, 'data', head .. id .. tail)
      call('EXPIRE', job, ttl)
      first = job
    end
    n = n + 1
    ids[n], left[n] = id, results .. id
  end
  call('DEL', unpack(left))
  sure('RPUSH', list, unpack(ids))
  sure('ZREM', prefix .. ':scheduled:' .. queue, unpack(ids))
  channels[channel] = true
  at = at + 3
end
for channel in pairs(channels) do call('PUBLISH', channel, '') end
"""
)

# ARGV: seats, then for each level: n, n list keys. Replies with {entries dropped, id, id, ...}.
# Within a level the lists share the seats evenly; what one list cannot use, the others get. A list that the server
# refuses to pop from ends the take with what there is: an error would lose what has been popped before it.
TAKE = (
    _ALWAYS
    + """
local seats, dropped, at, taken = tonumber(ARGV[1]), 0, 2, {}
while at <= #ARGV and seats > 0 do
  local n, lists = tonumber(ARGV[at]), {}
  for i = 1, n do lists[i] = ARGV[at + i] end
  at = at + 1 + n
  while #lists > 0 and seats > 0 do
    local share, left = math.max(1, math.floor(seats / #lists)), {}
    for _, list in ipairs(lists) do
      local want = math.min(share, seats)
      if want > 0 then
        local popped = redis.pcall('LPOP', list, want)
        if is_wrong_type(popped) then
          redis.call('DEL', list)
          dropped, popped = dropped + 1, false
        elseif type(popped) == 'table' and popped.err then
          if #taken + dropped == 0 then return redis.call('LPOP', list, want) end
          table.insert(taken, 1, dropped)
          return taken
        end
        if popped then
          for _, value in ipairs(popped) do
            if is_id(value) then
              taken[#taken + 1] = value
              seats = seats - 1
            else
              dropped = dropped + 1
            end
          end
          if #popped == want then left[#left + 1] = list end
        end
      end
    end
    lists = left
  end
end
table.insert(taken, 1, dropped)
return taken
"""
)

# ARGV: list keys. Replies with {entries dropped, head or '', head or '', ...}.
HEADS = (
    _ALWAYS
    + """
local dropped, heads = 0, {}
for i, list in ipairs(ARGV) do
  local head = sure('LINDEX', list, 0)
  while head and not is_id(head) do
    redis.call('LPOP', list)
    dropped = dropped + 1
    head = redis.call('LINDEX', list, 0)
  end
  heads[i] = head or ''
end
table.insert(heads, 1, dropped)
return heads
"""
)

# ARGV: list key, id. Pops the id if it is the list's head.
DROP_HEAD = (
    _ALWAYS
    + """
if sure('LINDEX', ARGV[1], 0) == ARGV[2] then redis.call('LPOP', ARGV[1]) end
"""
)

# ARGV: prefix, now (unix), queue names. Replies with five numbers a queue; a key of the wrong type counts 0.
COUNTS = """
local function number(...)
  local reply = redis.pcall(...)
  return type(reply) == 'number' and reply or 0
end
local prefix, after, counts = ARGV[1], '(' .. ARGV[2], {}
for i = 3, #ARGV do
  local queue = ARGV[i]
  counts[#counts + 1] = number('LLEN', prefix .. ':queue:' .. queue)
  counts[#counts + 1] = number('ZCARD', prefix .. ':wip:' .. queue)
  counts[#counts + 1] = number('ZCARD', prefix .. ':scheduled:' .. queue)
  counts[#counts + 1] = number('ZCOUNT', prefix .. ':finished:' .. queue, after, '+inf')
  counts[#counts + 1] = number('ZCOUNT', prefix .. ':failed:' .. queue, after, '+inf')
end
return counts
"""

# ARGV: prefix, execution of RQ, now (as RQ writes it), worker,
# then for each queue: its name, n, n times a score and its ids in one text with commas between.
# What is called for each id is called directly: `sure`, once for each, was a fifth of the server's time.
STARTED = (
    _ALWAYS
    + """
local prefix, execution, now, worker, at = ARGV[1], ':' .. ARGV[2], ARGV[3], ARGV[4], 5
local jobs, pcall, each = prefix .. ':job:', redis.pcall, string.gmatch
while at <= #ARGV do
  local queue, n, members, m = ARGV[at], tonumber(ARGV[at + 1]), {}, 0
  for i = 1, n do
    local score = ARGV[at + 2 * i]
    for id in each(ARGV[at + 2 * i + 1], '%d+') do
      members[m + 1], members[m + 2] = score, id .. execution
      m = m + 2
      local job = jobs .. id
      local new = pcall('HSET', job, 'status', 'started', 'started_at', now, 'worker_name', worker)
      if type(new) == 'table' then
        new = sure('HSET', job, 'status', 'started', 'started_at', now, 'worker_name', worker)
      end
      -- three new fields: there was no hash, and none may be written where none was
      if new == 3 then redis.call('DEL', job) end
    end
  end
  sure('ZADD', prefix .. ':wip:' .. queue, unpack(members))
  at = at + 2 + 2 * n
end
"""
)

# ARGV: prefix, execution of RQ, now (as RQ writes it), kept, head and tail of the job's data, failure ttl,
# then groups: queue, outcome, ttl of the hash, n, n times a score and its ids in one text with commas between.
# Outcomes: finished, failed, scheduled, queued.
SETTLE = (
    _ALWAYS
    + _FILL
    + """
local prefix, execution, now, kept = ARGV[1], ':' .. ARGV[2], ARGV[3], tonumber(ARGV[4])
local head, tail, failure_ttl, at = ARGV[5], ARGV[6], ARGV[7], 8
local jobs, results = prefix .. ':job:', prefix .. ':results:'
local call, pcall, each = redis.call, redis.pcall, string.gmatch
local function trim(registry)
  local over = call('ZCARD', registry) - kept
  while over > 0 do
    local keys = {}
    for i, id in ipairs(call('ZRANGE', registry, 0, math.min(over, 1000) - 1)) do
      keys[2 * i - 1], keys[2 * i] = jobs .. id, results .. id
    end
    call('DEL', unpack(keys))
    over = over - call('ZREMRANGEBYRANK', registry, 0, #keys / 2 - 1)
  end
end
while at <= #ARGV do
  local queue, outcome, ttl, n = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  local ids, started, scored, m = {}, {}, {}, 0
  local ends = outcome == 'finished' or outcome == 'failed'
  for i = 1, n do
    local score = ARGV[at + 2 + 2 * i]
    for id in each(ARGV[at + 3 + 2 * i], '%d+') do
      m = m + 1
      ids[m], started[m] = id, id .. execution
      scored[2 * m - 1], scored[2 * m] = score, id
      local job = jobs .. id
      -- EXPIRE tells whether the hash exists, and none may be written where none was. It is also the write
      -- after which a full server lets the script pass: what ends must be trimmed, or nothing is freed.
      if call('EXPIRE', job, ttl) == 1 then
        if not ends then
          sure('HSET', job, 'status', outcome)
        elseif type(pcall('HSET', job, 'status', outcome, 'ended_at', now)) == 'table' then
          sure('HSET', job, 'status', outcome, 'ended_at', now)
        end
      elseif outcome == 'failed' then
        fill(job, id, queue, head, tail, failure_ttl)
      end
    end
  end
  sure('ZREM', prefix .. ':wip:' .. queue, unpack(started))
  -- `rq info` may have called an overdue one failed meanwhile
  local failed = prefix .. ':failed:' .. queue
  if outcome ~= 'failed' and call('EXISTS', failed) == 1 then sure('ZREM', failed, unpack(ids)) end
  if outcome ~= 'queued' then
    local registry = prefix .. ':' .. outcome .. ':' .. queue
    sure('ZADD', registry, unpack(scored))
    if outcome ~= 'scheduled' then trim(registry) end
  end
  at = at + 4 + 2 * n
end
"""
)

# ARGV: prefix, execution of RQ, ttl of hashes that leave the picture, head and tail of the job's data,
# failure ttl, queue, then for started, scheduled and failed: n, n pairs of score, id.
# Replaces the three registries of one queue; Finished keeps itself.
REBUILD = (
    _ALWAYS
    + _FILL
    + """
local prefix, execution, ttl = ARGV[1], ':' .. ARGV[2], ARGV[3]
local head, tail, failure_ttl, queue, at = ARGV[4], ARGV[5], ARGV[6], ARGV[7], 8
local jobs, shown, gone = prefix .. ':job:', {}, {}
local registries = {'wip', 'scheduled', 'failed'}
local statuses = {wip = 'started', scheduled = 'scheduled', failed = 'failed'}
for _, name in ipairs(registries) do
  local registry = prefix .. ':' .. name .. ':' .. queue
  for _, member in ipairs(sure('ZRANGE', registry, 0, -1)) do
    gone[#gone + 1] = {string.match(member, '^[^:]*'), name}
  end
  redis.call('DEL', registry)
  local n, members = tonumber(ARGV[at]), {}
  for i = 1, n do
    local score, id = ARGV[at + 2 * i - 1], ARGV[at + 2 * i]
    members[#members + 1], members[#members + 2] = score, name == 'wip' and id .. execution or id
    if #members == 2000 or i == n then
      redis.call('ZADD', registry, unpack(members))
      members = {}
    end
    shown[id] = true
    -- the others' hashes were written when they moved; looking at each would hold the server up
    if name == 'failed' then
      local known = sure('HGET', jobs .. id, 'status')
      if not known then
        fill(jobs .. id, id, queue, head, tail, failure_ttl)
      elseif known ~= 'failed' then
        redis.call('HSET', jobs .. id, 'status', 'failed')
      end
    end
  end
  at = at + 1 + 2 * n
end
for _, entry in ipairs(gone) do
  local id, name = entry[1], entry[2]
  if not shown[id] then
    local job = jobs .. id
    if redis.pcall('HGET', job, 'status') == statuses[name] then
      if name == 'failed' then
        redis.call('DEL', job, prefix .. ':results:' .. id)
      else
        redis.call('EXPIRE', job, ttl)
      end
    end
  end
end
"""
)

# ARGV: prefix, ids.
FORGET = """
local keys = {}
for i = 2, #ARGV do
  keys[2 * i - 3], keys[2 * i - 2] = ARGV[1] .. ':job:' .. ARGV[i], ARGV[1] .. ':results:' .. ARGV[i]
end
redis.call('DEL', unpack(keys))
"""
