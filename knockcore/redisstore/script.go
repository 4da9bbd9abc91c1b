// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/valkey-io/valkey-go"
)

// The keys, all of them in the slot of the prefix:
//
//	{prefix}:epoch   hash: id, run, repl, base (see verifyScript)
//	{prefix}:seq     the version of the last change
//	{prefix}:log     stream of changes, one field `e`
//	{prefix}:index   sorted set of items by when they are over, Unix ms
//	{prefix}:nodes   hash of nodes
//	{prefix}:n:KEY   a spent nonce, until no node can accept the frame any more
//	{prefix}:i:NAME  an item: a grant (gID) or a ban (bPREFIX)
//	{prefix}:t:NAME  tombstone: the version at which the item was deleted
func (s *Store) key(parts ...string) string {
	return "{" + s.opts.Prefix + "}:" + strings.Join(parts, ":")
}

// logLength is about how many changes the log keeps. A node that missed more
// compares everything.
const logLength = 1 << 16

// verifyScript finds out whose memory the answers come from, and begins an epoch
// where it is not the one of the epoch before: after a restart (with data, whatever
// its age, or without), a failover, or when somebody emptied the database. The
// epoch's base is the time of its beginning: frames that could have been accepted
// before it are refused.
//
// KEYS: epoch, seq, nodes. ARGV: ID for a new epoch, this node's clock (Unix ms),
// the greatest version that it knows, its name, what it tells of itself, "1" to
// begin an epoch anyway.
//
// Versions grow by one with each change. A new epoch's begin at its microsecond,
// so that they are greater than all before, also those that were lost.
const verifyScript = `-- caddy-knock
local info = redis.call('INFO', 'server') .. redis.call('INFO', 'replication') .. redis.call('INFO', 'memory')
local function field(name) return string.match(info, '\n' .. name .. ':([^\r\n]*)') or '' end
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local run, repl, role = field('run_id'), field('master_replid'), field('role')
local answer = {field('redis_version'), role, run, repl, field('maxmemory'), field('maxmemory_policy'), string.format('%.0f', now)}
if role ~= 'master' or run == '' or repl == '' or field('maxmemory') ~= '0' and field('maxmemory_policy') ~= 'noeviction' then
	return answer
end
local id, oldRun, oldRepl, base = unpack(redis.call('HMGET', KEYS[1], 'id', 'run', 'repl', 'base'))
if not id or not base or not redis.call('GET', KEYS[2]) or oldRun ~= run or oldRepl ~= repl or ARGV[6] == '1' then
	id, base = ARGV[1], math.max(now, tonumber(ARGV[2]), tonumber(base or 0))
	local seq = math.max(tonumber(redis.call('GET', KEYS[2]) or 0), tonumber(ARGV[3]), base * 1000)
	base = string.format('%.0f', base)
	redis.call('HSET', KEYS[1], 'id', id, 'run', run, 'repl', repl, 'base', base)
	redis.call('SET', KEYS[2], string.format('%.0f', seq))
end
redis.call('HSET', KEYS[3], ARGV[4], ARGV[5])
answer[8], answer[9], answer[10] = id, base, redis.call('GET', KEYS[2]) or '0'
answer[11] = redis.call('HGETALL', KEYS[3])
return answer`

// changeScript makes all changes. Its text names the epoch and the server's
// replication ID, and a server forgets scripts when it ends and does not give them
// to replicas: it runs only in the very process that the epoch belongs to, and
// nothing can come between that check and the change.
//
// KEYS: what it is about (n, i), epoch, seq, log, index, tombstone. ARGV: kind,
// instance of this node, Redis's clock as this node knows it (Unix ms), what
// follows by kind:
//
//	n  time to live (ms), name, payload: spend a nonce
//	s  time to live, name, payload: save an item
//	d  time to live of the tombstone, name: delete an item
//	t  name: take one use of an item
//	p  time to live, name, payload, version, instance: save an item again that was
//	   lost with an epoch, unless something later is known; "dead VERSION" says
//	   that it was deleted
//	x  time to live of the tombstone, name, version: the same for a deletion
//	r  name, payload: tell something
//	l  nothing: to be loaded
//
// An item is "VERSION INSTANCE USES JSON", where USES has 6 characters. A change in
// the log is "KIND VERSION ITEM-VERSION INSTANCE NAME PAYLOAD".
const changeScript = `-- caddy-knock %[1]s
if not string.find(redis.call('INFO', 'replication'), 'master_replid:%[2]s', 1, true) or redis.call('HGET', KEYS[2], 'id') ~= '%[1]s' then
	return 'epoch'
end
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
if math.abs(now - tonumber(ARGV[3])) > %[3]d then
	return 'clock'
end
local function tell(kind, name, payload, iv, instance)
	local v = string.format('%%.0f', redis.call('INCR', KEYS[3]))
	iv = iv or v
	redis.call('XADD', KEYS[4], 'MAXLEN', '~', %[4]d, '*', 'e', kind .. ' ' .. v .. ' ' .. iv .. ' ' .. (instance or ARGV[2]) .. ' ' .. name .. ' ' .. payload)
	return v
end
local function save(name, ttl, payload, iv, instance)
	redis.call('ZADD', KEYS[5], now + ttl, name) -- first: it is refused when memory is short
	redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now)
	local v = tell(iv and 'p' or 's', name, payload, iv, instance)
	redis.call('SET', KEYS[1], (iv or v) .. ' ' .. (instance or ARGV[2]) .. ' ' .. payload, 'PX', ttl)
	redis.call('DEL', KEYS[6])
	return v
end
local function version(value) return tonumber(value and string.match(value, '^%%d+') or -1) end
local kind = ARGV[1]
if kind == 'n' then
	if not redis.call('SET', KEYS[1], ARGV[2], 'NX', 'PX', ARGV[4]) then
		return 'seen'
	end
	return tell('n', ARGV[5], ARGV[6])
elseif kind == 's' then
	return save(ARGV[5], tonumber(ARGV[4]), ARGV[6])
elseif kind == 'd' then
	redis.call('DEL', KEYS[1])
	redis.call('ZREM', KEYS[5], ARGV[5])
	local v = tell('d', ARGV[5], '')
	redis.call('SET', KEYS[6], v, 'PX', ARGV[4])
	return v
elseif kind == 't' then
	local instance, uses, rest = string.match(redis.call('GET', KEYS[1]) or '', '^%%d+ (%%S+) (......)(.*)$')
	uses = tonumber(uses or 0)
	if uses == 0 then
		return 'gone'
	end
	if uses > 0 then
		uses = uses - 1
	end
	local payload = string.format('%%6d', uses) .. rest
	local v = tell('s', ARGV[4], payload)
	redis.call('SET', KEYS[1], v .. ' ' .. ARGV[2] .. ' ' .. payload, 'KEEPTTL')
	return v .. ' ' .. uses
elseif kind == 'p' then
	local iv = tonumber(ARGV[7])
	local dead = redis.call('GET', KEYS[6])
	if version(dead) >= iv then
		return 'dead ' .. dead
	end
	if version(redis.call('GET', KEYS[1])) >= iv then
		return '0'
	end
	return save(ARGV[5], tonumber(ARGV[4]), ARGV[6], ARGV[7], ARGV[8])
elseif kind == 'x' then
	local iv = tonumber(ARGV[6])
	local there = version(redis.call('GET', KEYS[1]))
	if there > iv or version(redis.call('GET', KEYS[6])) >= iv then
		return '0'
	end
	redis.call('SET', KEYS[6], ARGV[6], 'PX', ARGV[4])
	if there < 0 then
		return '0'
	end
	redis.call('DEL', KEYS[1])
	redis.call('ZREM', KEYS[5], ARGV[5])
	return tell('d', ARGV[5], '', ARGV[6])
elseif kind == 'r' then
	return tell('r', ARGV[4], ARGV[5])
end
return 'loaded'`

// headScript says where the log ends: the version and the ID of the last change.
const headScript = `-- caddy-knock
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return {redis.call('GET', KEYS[1]) or '0', last[1] and last[1][1] or '0-0'}`

// ACLCommands are the rights on commands that a user needs, besides those on the
// keys of the prefix, as ACL SETUSER takes them.
const ACLCommands = "+hello +auth +client +ping +select +info +time +eval +evalsha +get +set +del +incr " +
	"+hget +hset +hmget +hgetall +hdel +zadd +zrem +zremrangebyscore +zscan +mget +xadd +xread +xrevrange +wait +cluster +readonly"

func sha(script string) string {
	sum := sha1.Sum([]byte(script))
	return hex.EncodeToString(sum[:])
}

// eval runs a script by its text, which also loads it.
func (s *Store) eval(ctx context.Context, c valkey.Client, script string, keys []string, args ...string) (valkey.ValkeyMessage, error) {
	result, err := s.do(ctx, c, c.B().Eval().Script(script).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build())
	if err != nil {
		return valkey.ValkeyMessage{}, err
	}
	return result.ToMessage()
}

// errLost says that the answer came from another server than the epoch's, or that
// its clock was set: nothing was changed.
var errLost = errors.New("the server is not the one that it was")

// change runs changeScript about an item or a nonce. The answer is "" with
// errLost.
func (s *Store) change(ctx context.Context, l *link, about, name string, kind string, args ...string) (string, error) {
	keys := []string{s.key(about, name), s.key("epoch"), s.key("seq"), s.key("log"), s.key("index"), s.key("t", name)}
	argv := append([]string{kind, s.instance, strconv.FormatInt(s.serverNow(), 10)}, args...)
	b := l.client.B()
	commands := []valkey.Completed{b.Evalsha().Sha1(l.sha).Numkeys(int64(len(keys))).Key(keys...).Arg(argv...).Build()}
	replicas := s.settings.Load().Replicas
	if kind == "n" && replicas > 0 {
		commands = append(commands, b.Wait().Numreplicas(int64(replicas)).Timeout(max(1, remaining(ctx).Milliseconds())).Build())
	}
	results, err := s.doAll(ctx, l.client, commands...)
	if err != nil {
		return "", err
	}
	answer, err := results[0].ToString()
	switch {
	case err != nil && strings.HasPrefix(err.Error(), "NOSCRIPT"), answer == "epoch", answer == "clock":
		return "", errLost
	case err != nil:
		return "", err
	}
	if len(results) > 1 && answer != "seen" {
		confirmed, err := results[1].AsInt64()
		if err != nil {
			return "", fmt.Errorf("waiting for replicas: %w", err)
		}
		if confirmed < int64(replicas) {
			return "", fmt.Errorf("%d of %d replicas confirmed it", confirmed, replicas)
		}
	}
	return answer, nil
}

// parseVersion reads what changes answer; 0 if nothing was changed.
func parseVersion(answer string) (uint64, error) {
	v, err := strconv.ParseUint(answer, 10, 53)
	if err != nil {
		return 0, fmt.Errorf("the server answered %.40q instead of a version", answer)
	}
	return v, nil
}
