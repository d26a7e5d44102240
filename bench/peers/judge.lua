-- Tokens by SHA-256, an allowlist per partner; verdicts of the last tokens are remembered per address.
local ffi = require "ffi"
local bit = require "bit"
ffi.cdef [[ unsigned char *SHA256(const unsigned char *d, size_t n, unsigned char *md); ]]

local judge = {}
local partners, remembered, nremembered = {}, {}, 0
local REMEMBERED_MAX = 20000
local digest = ffi.new("unsigned char[32]")

local function number_of(address)
    local a, b, c, d = string.match(address, "^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
    return a and bit.bor(bit.lshift(a, 24), bit.lshift(b, 16), bit.lshift(c, 8), d)
end

local function unhex(text)
    return (string.gsub(text, "..", function(pair) return string.char(tonumber(pair, 16)) end))
end

function judge.load(path)
    for line in io.lines(path) do
        local sha, id, widget, prefixes = string.match(line, "^(%S+) (%S+) (%S+) (.*)$")
        partners[unhex(sha)] = id .. " " .. widget .. " " .. prefixes
    end
end

local function is_allowed(prefixes, address)
    local number = number_of(address)
    for net, bits in string.gmatch(prefixes, "(%S+)/(%d+)") do
        local mask = bit.lshift(-1, 32 - bits)
        if number and bit.band(number, mask) == bit.band(number_of(net), mask) then return true end
    end
    return false
end

local function decide(authorization, address)
    local token = authorization and string.match(authorization, "^Bearer ([%w%-._~+/]+=*)$")
    if not token then return { status = 401 } end
    ffi.C.SHA256(token, #token, digest)
    local record = partners[ffi.string(digest, 32)]
    if not record then return { status = 401 } end
    local id, widget, prefixes = string.match(record, "^(%S+) (%S+) (.*)$")
    return { status = not is_allowed(prefixes, address) and 403, id = id, widget = widget }
end

function judge.access()
    local authorization, address = ngx.var.http_authorization, ngx.var.remote_addr
    local key = authorization and authorization .. "|" .. address
    local verdict = key and remembered[key]
    if not verdict then
        verdict = decide(authorization, address)
        if verdict.id then
            if nremembered >= REMEMBERED_MAX then remembered, nremembered = {}, 0 end
            remembered[key], nremembered = verdict, nremembered + 1
        end
    end
    if verdict.status then
        ngx.status = verdict.status
        if verdict.status == 401 then ngx.header["WWW-Authenticate"] = "Bearer" end
        ngx.header["Content-Type"] = "application/json"
        local body = verdict.status == 401 and '{"error":"unauthorized"}' or '{"error":"forbidden"}'
        ngx.header["Content-Length"] = #body
        ngx.print(body)
        return ngx.exit(ngx.HTTP_OK)
    end
    ngx.var.partner, ngx.var.widget = verdict.id, verdict.widget
end

return judge
