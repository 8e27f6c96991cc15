-- How wide a table's columns are in the PDF, and in what size of type: a row shall have one or two
-- lines where it can. Widths of characters are measured in Libertinus Serif, in em.

local PAGE, PADDING = 453, 9 -- points: between the margins, and what a cell adds to its text
local SIZES = { 9, 8.5, 8, 7.5 } -- points, the first preferred
local LINE, LEADING = 1.15, 0.5 -- em from line to line, and between two lines
local ROW = 6.8 -- points between the text of two rows
local STEP, MOVES = 2, { 20, 8, 3 } -- points by which columns grow, and what one gives another
local WIDE = { m = 0.79, w = 0.75, W = 0.95, M = 0.84, ["%"] = 0.64, ["&"] = 0.7, ["→"] = 1.13 }
local CLASSES = {
  { "[%.,:;'|]", 0.24 }, { "[ijlftr%(%)%[%]/%-I ]", 0.33 }, { "%d", 0.47 }, { "%u", 0.65 },
}
local CODE, BOLD, SLACK = 0.5, 1.13, 1.02

local function width_of_character(character)
  if WIDE[character] then return WIDE[character] end
  if character == "\u{200b}" then return 0 end
  if character == "\u{a0}" or character == " " then return 0.25 end
  for _, class in ipairs(CLASSES) do
    if character:match("^" .. class[1] .. "$") then return class[2] end
  end
  return 0.51
end

-- What cannot be broken, as widths in em: {space before it, width} in order.
local function tokens_of(cell, is_head)
  local tokens, space, width = {}, 0, 0
  local function close(next_space)
    if width > 0 then table.insert(tokens, { space, width }) end
    space, width = width > 0 and next_space or math.max(space, next_space), 0
  end
  local function add(text, code)
    for _, point in utf8.codes(text) do
      local character = utf8.char(point)
      if character == " " then
        close(0.25)
      else
        width = width + (code or width_of_character(character)) * SLACK * (is_head and BOLD or 1)
        if character == "\u{200b}" or character == "-" or character == "/" then close(0) end
      end
    end
  end
  pandoc.Blocks(cell.contents):walk({
    traverse = "topdown",
    Inline = function(element)
      if element.t == "Code" then return add(element.text, CODE) end
      if element.t == "Space" or element.t == "SoftBreak" then return add(" ") end
      if element.t == "Str" or element.t == "Math" then add(element.text) end
    end,
  })
  close(0)
  return tokens
end

local function lines_of(tokens, room)
  local lines, used = 1, 0
  for i, token in ipairs(tokens) do
    local with = used + (i > 1 and token[1] or 0) + token[2]
    if i > 1 and with > room then
      lines, used = lines + 1, token[2]
    else
      used = with
    end
  end
  return lines
end

-- Rows of cells, each the tokens of its text; the head is the first.
local function rows_of(element)
  local rows = {}
  local function add(group, is_head)
    for _, row in ipairs(group) do
      local cells = {}
      for j, cell in ipairs(row.cells) do cells[j] = tokens_of(cell, is_head) end
      table.insert(rows, cells)
    end
  end
  add(element.head.rows, true)
  for _, body in ipairs(element.bodies) do add(body.body, false) end
  return rows
end

-- Least and natural width of a column's text in em, from its longest token and its longest cell.
local function bounds(rows, j)
  local least, natural = 0, 0
  for _, cells in ipairs(rows) do
    local whole = 0
    for i, token in ipairs(cells[j] or {}) do
      least = math.max(least, token[2])
      whole = whole + token[2] + (i > 1 and token[1] or 0)
    end
    natural = math.max(natural, whole)
  end
  return least, natural
end

-- A tall cell makes its whole row tall, so it weighs more than its lines.
local function weight(rows, j, room)
  local sum = 0
  for _, cells in ipairs(rows) do sum = sum + lines_of(cells[j] or {}, room) ^ 3 end
  return sum
end

-- Height of each row and of all, in points; whether the rows below the head are low: none of more
-- than two lines, and half of them of one.
local function heights(rows, widths, size)
  local each, total, two, more = {}, 0, 0, 0
  for i, cells in ipairs(rows) do
    local lines = 1
    for j, tokens in ipairs(cells) do
      lines = math.max(lines, lines_of(tokens, (widths[j] - PADDING) / size + 0.01))
    end
    if i > 1 and lines > 1 then two = two + 1 end
    if i > 1 and lines > 2 then more = more + 1 end
    each[i] = (lines * LINE - LEADING) * size + ROW
    total = total + each[i]
  end
  return each, total, more == 0 and two <= (#rows - 1) / 2
end

-- Lines of every cell of column j at a width, remembered.
local function lines_at(rows, known, j, width, size)
  local key = j * 10000 + math.floor(width * 10)
  if not known[key] then
    known[key] = {}
    for i, cells in ipairs(rows) do
      known[key][i] = lines_of(cells[j] or {}, (width - PADDING) / size + 0.01)
    end
  end
  return known[key]
end

-- Lines of all rows, and a little for those of each cell.
local function cost_of(rows, widths, size, known)
  local columns, cost = {}, 0
  for j, width in ipairs(widths) do columns[j] = lines_at(rows, known, j, width, size) end
  for i = 1, #rows do
    local most = 1
    for j = 1, #columns do
      most = math.max(most, columns[j][i])
      cost = cost + 0.01 * columns[j][i] ^ 2
    end
    cost = cost + most
  end
  return cost
end

-- Moves width from one column to another for as long as rows get lower.
local function exchange(rows, bound, widths, size)
  local known, improved = {}, true
  local cost = cost_of(rows, widths, size, known)
  local function try_move(from, to, amount)
    if widths[from] - amount < bound[from].least * size + PADDING then return end
    widths[from], widths[to] = widths[from] - amount, widths[to] + amount
    local now = cost_of(rows, widths, size, known)
    if now < cost then cost, improved = now, true return end
    widths[from], widths[to] = widths[from] + amount, widths[to] - amount
  end
  while improved do
    improved = false
    for from = 1, #widths do
      for to = 1, #widths do
        for _, amount in ipairs(MOVES) do
          if from ~= to then try_move(from, to, amount) end
        end
      end
    end
  end
end

-- Gives the room that the longest tokens leave to whichever column gains most by a point of it.
local function share(rows, bound, size)
  local widths, room = {}, PAGE
  for j, b in ipairs(bound) do
    widths[j] = b.least * size + PADDING
    room = room - widths[j]
  end
  while true do
    local best = { gain = 0 }
    for j, b in ipairs(bound) do
      local now = weight(rows, j, (widths[j] - PADDING) / size)
      for more = STEP, math.min(room, b.natural * size + PADDING + STEP - widths[j]), STEP do
        local gain = (now - weight(rows, j, (widths[j] + more - PADDING) / size)) / more
        if gain > best.gain then best = { gain = gain, column = j, more = more } end
      end
    end
    if not best.column then break end
    widths[best.column] = widths[best.column] + best.more
    room = room - best.more
  end
  for j in ipairs(widths) do widths[j] = widths[j] + math.max(room, 0) / #widths end
  exchange(rows, bound, widths, size)
  return widths, room >= 0
end

-- One size of type tried: the widths (`shares` where the table would else be wider than the page).
local function try(rows, bound, size)
  local wide, widths, fits = 0, {}, true
  for j, b in ipairs(bound) do
    widths[j] = b.natural * size + PADDING
    wide = wide + widths[j]
  end
  local is_wider = wide > PAGE
  if is_wider then widths, fits = share(rows, bound, size) end
  local each, total, is_low = heights(rows, widths, size)
  local shares = is_wider and pandoc.List(widths):map(function(width) return width / PAGE end) or nil
  return {
    size = size, shares = shares, rows = each, height = total, is_low = is_low, fits = fits,
  }
end

-- The first size in which the rows are low, else that whose height, weighed by how small its type
-- is, is least; below the smallest only where a word is wider than its column can be.
local function fit(element)
  local rows, bound, least, best = rows_of(element), {}, 0, nil
  for j = 1, #element.colspecs do
    local a, b = bounds(rows, j)
    bound[j] = { least = a, natural = b }
    least = least + a
  end
  for _, size in ipairs(SIZES) do
    local tried = try(rows, bound, size)
    if tried.fits and tried.is_low then return tried end
    tried.cost = tried.height / size ^ 1.75
    if tried.fits and (not best or tried.cost < best.cost * 0.98) then best = tried end
  end
  return best or try(rows, bound, (PAGE - PADDING * #bound) / math.max(least, 1) * 0.999)
end

return fit
