-- What the filters of the report and of the blog post share: an unknown name ends the run in one line.

local names = {}

function names.fail(what, value, known)
  local allowed = known and pandoc.List({})
  for key in pairs(known or {}) do allowed:insert(key) end
  if allowed then allowed:sort() end
  error("USER" .. pandoc.json.encode({ what = what, value = value, allowed = allowed }))
end

return names
