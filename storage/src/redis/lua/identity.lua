-- Names this run of this server and its line of replication: another one may lack what was visible here.
local function identity()
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  local line = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
  return string.sub(run, 1, 16) .. string.sub(line, 1, 16)
end
