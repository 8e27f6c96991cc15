-- Between pandoc's reading and its writing: section numbers, references to labels, formulas, and
-- what HTML and PDF show differently. Python gave every figure and table its name ("Figure 2").

local stringify = pandoc.utils.stringify
local is_html = FORMAT:match("html") ~= nil
local NARROW = "\u{a0}" -- no line break between "Figure" and its number
local UNNUMBERED = { "abstract", "appendix", "references", "acknowledg" }
local ROOT = pandoc.system.get_working_directory() -- of the project
local fit = dofile(pandoc.path.join({ pandoc.path.directory(PANDOC_SCRIPT_FILE), "columns.lua" }))
local LONG_TABLE = 120 -- points; higher ones break across pages
local FIRST_ROWS = 3 -- of a table that breaks, on the page on which it begins

local labels = {} -- label -> name
local works = {} -- keys of the bibliography, as a set

local fail = dofile(pandoc.path.join({ pandoc.path.directory(PANDOC_SCRIPT_FILE), "names.lua" })).fail

local function raw(text, inline)
  return (inline and pandoc.RawInline or pandoc.RawBlock)(is_html and "html" or "typst", text)
end

-- ---------------------------------------------------------------- structure

local function flatten(blocks)
  local flat = pandoc.Blocks({})
  for _, block in ipairs(blocks) do
    if block.t == "Div" and block.classes:includes("prose") then
      flat:extend(block.content)
    else
      flat:insert(block)
    end
  end
  return flat
end

local function is_unnumbered(text)
  for _, start in ipairs(UNNUMBERED) do
    if text:lower():sub(1, #start) == start then return true end
  end
  return false
end

-- The first heading becomes the title unless one was given; sections start at level 2.
local function number_sections(blocks, meta)
  local counts, title = {}, nil
  local numbered = pandoc.Blocks({})
  for _, block in ipairs(blocks) do
    if block.t ~= "Header" then
      numbered:insert(block)
    elseif block.level == 1 and not title then
      title = block.content
    else
      local name = stringify(block)
      if not is_unnumbered(name) then
        local depth = math.max(block.level - 1, 1)
        for level = 1, depth do counts[level] = counts[level] or 0 end
        counts[depth] = counts[depth] + 1
        for level = depth + 1, #counts do counts[level] = nil end
        local number = table.concat(counts, ".")
        block.content:insert(1, pandoc.Str(number .. "\u{2002}"))
        name = "section" .. NARROW .. number
      end
      labels["sec:" .. block.identifier] = name
      if not is_html then block.level = math.max(block.level - 1, 1) end
      numbered:insert(block)
    end
  end
  meta.title = meta.title or (title and pandoc.MetaInlines(title))
  if not meta.title then fail("title") end
  return numbered
end

-- Sets the abstract apart, and says where the references go.
local function frame(blocks)
  local framed, abstract, has_references = pandoc.Blocks({}), nil, false
  local function close_abstract()
    if abstract then framed:insert(pandoc.Div(abstract, { id = "summary" })) end
    abstract = nil
  end
  for _, block in ipairs(blocks) do
    local name = block.t == "Header" and stringify(block):lower()
    if name then close_abstract() end
    local place = abstract or framed
    place:insert(block)
    if name == "abstract" then abstract = pandoc.Blocks({}) end
    if name == "references" then
      has_references = true
      framed:insert(pandoc.Div({}, { id = "refs" }))
    end
  end
  close_abstract()
  return framed, has_references
end

-- ---------------------------------------------------------------- inside the text

-- Says what TeX leaves to the eye: which bars make a pair, which text is a function's name. The
-- PDF's template sets \| right by itself.
local function formula(math)
  local tex = math.text:gsub("\\left\\|", "\\left\\lVert "):gsub("\\right\\|", "\\right\\rVert ")
  tex = tex:gsub("\\|", "\3")
  if is_html then tex = tex:gsub("\3(.-)\3", "\\lVert %1\\rVert ") end
  tex = tex:gsub("\\lvert", "\\left|"):gsub("\\rvert", "\\right|")
  tex = tex:gsub("\\left|", "\1"):gsub("\\right|", "\2")
  tex = tex:gsub("|([^|\1\2]*)|", "\1%1\2"):gsub("\1", "\\left|"):gsub("\2", "\\right|")
  tex = tex:gsub("\3", "\\|")
  for _, command in ipairs({ "text", "operatorname" }) do
    tex = tex:gsub("\\" .. command .. "{(%w+)}(%s*%()", "\\mathrm{%1}%2")
  end
  math.text = tex
  if not is_html or math.mathtype == "InlineMath" then return math end
  return pandoc.Span({ math }, { class = "scroll" })
end

local function reference(cite)
  local links = pandoc.Inlines({})
  for _, citation in ipairs(cite.citations) do
    local id = citation.id
    local kind = id:match("^(%a+):")
    if kind == "fig" or kind == "tbl" or kind == "sec" then
      if not labels[id] then fail("label", id, labels) end
      if #links > 0 then links:insert(pandoc.Str(", ")) end
      links:insert(pandoc.Link(labels[id], "#" .. id:gsub("^sec:", "")))
    elseif not works[id] then
      fail("citation", id, works)
    end
  end
  return #links > 0 and links or nil
end

-- A per cent sign stands off its number everywhere, and on its line.
local function per_cent(inlines)
  local kept = pandoc.Inlines({})
  for _, inline in ipairs(inlines) do
    local before = kept[#kept - 1]
    local is_apart = inline.t == "Str" and inline.text:match("^%%%W*$") and #kept > 1
      and (kept[#kept].t == "Space" or kept[#kept].t == "SoftBreak") and before.t == "Str" and before.text:match("%d$")
    if is_apart then
      kept:remove()
      before.text = before.text .. NARROW .. inline.text
    else
      if inline.t == "Str" then inline.text = inline.text:gsub("(%d)%%(%W*)$", "%1" .. NARROW .. "%%%2") end
      kept:insert(inline)
    end
  end
  return kept
end

local function exists(path)
  local file = io.open(path)
  return file ~= nil and file:close()
end

-- A name from a file may look like a link; only what leads to a page or a place is one.
local function link(element)
  local scheme = element.target:match("^%s*(%a[%w+.-]*):")
  if scheme and not ({ http = true, https = true, mailto = true })[scheme:lower()] then
    return element.content
  end
end

-- Images come from files; Typst, which runs elsewhere, gets whole paths.
local function image(element)
  if element.src:match("^%a+:") or not exists(element.src) then fail("image", element.src) end
  if is_html then return element end
  if element.src:sub(1, 1) ~= "/" then element.src = ROOT .. "/" .. element.src end
  element.attributes.width = element.attributes.width or "80%"
  return element
end

-- ---------------------------------------------------------------- tables

local function is_number(inline)
  if not inline or inline.t ~= "Str" then return false end
  return inline.text:gsub(NARROW, ""):match("^[%(−]*%d[%d.]*%%?%)?[,;*]?$")
end

-- An interval ("0.1 to 0.3") stays on one line.
local function intervals_kept(element)
  return element:walk({
    Inlines = function(inlines)
      for i = 3, #inlines - 2 do
        local is_to = inlines[i].t == "Str" and inlines[i].text == "to"
        if is_to and is_number(inlines[i - 2]) and is_number(inlines[i + 2]) then
          inlines[i - 1], inlines[i + 1] = pandoc.Str(NARROW), pandoc.Str(NARROW)
        end
      end
      return inlines
    end,
  })
end

-- A name in a table may break after its underscores, which nothing does by itself.
local function breakable(element)
  local function broken(str)
    if not is_html then return pandoc.Str((str.text:gsub("_(%w)", "_\u{200b}%1"))) end
    local parts = pandoc.Inlines({})
    for part in str.text:gsub("([_/])(%w)", "%1\0%2"):gmatch("%Z+") do
      if #parts > 0 then parts:insert(raw("<wbr>", true)) end
      parts:insert(pandoc.Str(part))
    end
    return parts
  end
  return element:walk({ Str = broken })
end

-- Points that a table takes before it may break: its caption, head and first rows.
local function least_start(fitted, caption)
  local caption_lines = math.ceil(utf8.len(stringify(caption)) / 105)
  local start = 11 * caption_lines + 16
  for i = 1, math.min(#fitted.rows, FIRST_ROWS + 1) do start = start + fitted.rows[i] end
  return start
end

-- The caption stands above.
local function show_table(element, caption, label)
  element.colspecs = element.colspecs:map(function(spec)
    return { spec[1] == "AlignDefault" and "AlignLeft" or spec[1], spec[2] }
  end)
  element = breakable(intervals_kept(element))
  if is_html then
    local pairs_in_order = { { "role", "region" }, { "tabindex", "0" }, { "aria-label", "Table" } }
    local scroll = pandoc.Div({ element }, pandoc.Attr("", { "scroll" }, pairs_in_order))
    if not caption then return { scroll } end
    return { pandoc.Figure({ scroll }, { long = caption }, { id = label, class = "table" }) }
  end
  local fitted = fit(element)
  for j, share in ipairs(fitted.shares or {}) do
    element.colspecs[j] = { element.colspecs[j][1], share }
  end
  if caption then element.caption, element.identifier = { long = caption }, label end
  local is_long = fitted.height > LONG_TABLE
  local style = string.format(
    "#[#show figure: set block(breakable: %s); #show table: set text(size: %.1fpt)",
    tostring(is_long), fitted.size
  )
  if is_long then style = string.format("#room(%.0fpt)", least_start(fitted, caption or {})) .. style end
  return { raw(style), element, raw("]") }
end

-- ---------------------------------------------------------------- what Python marked

local function show_code(div)
  local is_open = div.classes:includes("open")
  if not is_html then return is_open and div.content or {} end
  local start = '<details class="code"' .. (is_open and " open" or "") .. "><summary>Code cell "
    .. div.attributes.number .. "</summary>"
  return { raw(start), div.content[1], raw("</details>") }
end

local function small(inlines)
  if is_html then return { pandoc.Span(inlines, { class = "source" }) } end
  inlines:insert(1, raw("#small[", true))
  inlines:insert(raw("]", true))
  return inlines
end

-- The picture of a figure in the HTML. What it answers to a pointer is data for pointer.js beside it.
local function plate(at)
  local wide = tonumber(at.width:match("^([%d.]+)%%$") or 0) > 60
  local start = string.format('<div class="answers%s"><div class="plate" style="width:%s">',
    wide and " wide" or "", at.width:gsub("[^%w.%%]", ""))
  local data = ""
  if at.pointer then
    local parts = assert(io.open(at.pointer)):read("a"):gsub("<", "\\u003c")
    data = '<script type="application/json" class="places">{"name": '
      .. pandoc.json.encode(at.name) .. ', "parts": ' .. parts .. "}</script>"
  end
  local picture = pandoc.Image({ pandoc.Str(at.name) }, at.html, "", { width = "100%" })
  return { raw(start), pandoc.Plain({ picture }), raw("</div>" .. data .. "</div>") }
end

local function show_exhibit(div)
  local at = div.attributes
  local caption = div.content:remove().content
  local source = pandoc.Inlines(at.source)
  if at.link then source = pandoc.Inlines({ pandoc.Link(source, at.link) }) end
  local number = pandoc.Strong({ pandoc.Str((at.name:gsub(" ", NARROW)) .. ".") })
  caption:insert(1, pandoc.Space())
  caption:insert(1, number)
  caption:insert(pandoc.Space())
  caption:extend(small(source))
  local long = { pandoc.Plain(caption) }
  if div.content[1] then return show_table(div.content[1], long, div.identifier) end
  local shown = is_html and plate(at)
    or { pandoc.Plain({ pandoc.Image({ pandoc.Str(at.name) }, at.pdf, "", { width = at.width }) }) }
  return { pandoc.Figure(shown, { long = long }, { id = div.identifier }) }
end

-- A paragraph of many names in code is set ragged: justified, it would be full of holes.
local function ragged(para)
  local codes = 0
  para:walk({ Code = function() codes = codes + 1 end })
  if is_html or codes < 4 then return nil end
  return { raw("#[#set par(justify: false)"), para, raw("]") }, false
end

local shown = {
  traverse = "topdown",
  Para = ragged,
  Table = function(element) return show_table(element), false end,
  Div = function(div)
    if div.classes:includes("code") then return show_code(div), false end
    if div.classes:includes("exhibit") then return show_exhibit(div), false end
    return nil
  end,
}

function Pandoc(doc)
  for _, key in ipairs(doc.meta.works or {}) do works[stringify(key)] = true end
  doc.blocks:walk({
    Div = function(div)
      if div.attributes.name then labels[div.identifier] = div.attributes.name:gsub(" ", NARROW) end
    end,
  })
  local blocks, has_references = frame(number_sections(flatten(doc.blocks), doc.meta))
  local is_citing = false
  blocks = blocks:walk({ Math = formula, Cite = reference, Link = link, Inlines = per_cent })
  blocks:walk({ Cite = function() is_citing = true end })
  if is_citing and not has_references then
    blocks:insert(pandoc.Header(2, "References", { id = "references" }))
    blocks:insert(pandoc.Div({}, { id = "refs" }))
  end
  doc.blocks = blocks:walk(shown):walk({ Image = image })
  return doc
end
