-- The excerpt of the report as a post: plain Markdown, in which labels have become names and figures files.

local stringify = pandoc.utils.stringify

local names = {} -- label -> name, of all figures and tables of the report
local sections = {} -- identifier of a heading of the post -> its text
local shown = {} -- labels of the figures and tables of the post
local works = {}

local fail = dofile(pandoc.path.join({ pandoc.path.directory(PANDOC_SCRIPT_FILE), "names.lua" })).fail

-- "Figure 2"; what the post leaves out is named as the report's.
local function name_of(id)
  if id:match("^sec:") then
    local heading = sections[id:sub(5)]
    if heading then return "the section “" .. heading .. "”" end
    return "the report’s section “" .. id:sub(5):gsub("-", " ") .. "”"
  end
  if not names[id] then fail("label", id, names) end
  return names[id] .. (shown[id] and "" or " of the report")
end

local function reference(cite)
  local told = pandoc.List({})
  for _, citation in ipairs(cite.citations) do
    if citation.id:match("^%a+:") then
      told:insert((name_of(citation.id)))
    elseif not works[citation.id] then
      fail("citation", citation.id, works)
    end
  end
  return #told > 0 and pandoc.Str(table.concat(told, ", ")) or nil
end

local function exhibit(div)
  local at, caption = div.attributes, div.content:remove().content
  local source = pandoc.Inlines(at.source)
  if at.link then source = pandoc.Inlines({ pandoc.Link(source, at.link) }) end
  local told = pandoc.Inlines({ pandoc.Strong({ pandoc.Str(at.name .. ".") }), pandoc.Space() })
  told:extend(caption)
  told:extend({ pandoc.Space(), pandoc.Emph(source) })
  if div.content[1] then return { pandoc.Para(told), div.content[1] } end
  return { pandoc.Para({ pandoc.Image({ pandoc.Str(at.name) }, at.image) }), pandoc.Para(told) }
end

local function section(header)
  if header.level == 1 then return {} end
  return pandoc.Header(header.level, header.content)
end

local function div(element)
  if element.classes:includes("code") then return {} end
  if element.classes:includes("exhibit") then return exhibit(element), false end
  return element.content
end

function Pandoc(doc)
  for _, pair in ipairs(doc.meta.names) do names[stringify(pair[1])] = stringify(pair[2]) end
  for _, key in ipairs(doc.meta.works) do works[stringify(key)] = true end
  doc.blocks:walk({
    Header = function(header) sections[header.identifier] = stringify(header) end,
    Div = function(element) shown[element.identifier] = true end,
  })
  local is_citing = false
  doc.blocks = doc.blocks:walk({ Cite = reference })
  doc.blocks:walk({ Cite = function() is_citing = true end })
  doc.blocks = doc.blocks:walk({ traverse = "topdown", Div = div, Header = section })
  if is_citing then doc.blocks:insert(pandoc.Header(2, "References")) end
  return doc
end
