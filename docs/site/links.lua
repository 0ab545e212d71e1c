-- What of docs/*.md is another thing on a page: links between pages end in .html; what lies outside docs/ is not
-- there, and stays as text; tables have no widths and no alignment, which would be styles within the page, and those
-- the daemon's policy forbids.
function Link(link)
  local page, anchor = link.target:match("^([%w_-]+)%.md(#?.*)$")
  if page then
    link.target = page .. ".html" .. anchor
    return link
  end
  if link.target:match("^%.%./") then
    return link.content
  end
end

-- docs/web/NAME.png lies beside the pages as web-NAME.png: nothing is in folders there.
function Image(image)
  image.src = image.src:gsub("^web/", "web-")
  return image
end

function Table(t)
  t.colspecs = t.colspecs:map(function() return {pandoc.AlignDefault, nil} end)
  return t
end
