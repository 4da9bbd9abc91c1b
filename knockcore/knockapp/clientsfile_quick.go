// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strconv"

	"github.com/caddyserver/caddy/v2"
)

// quickReader reads clients many times as fast as encoding/json, and to the same
// result. It knows what clients files usually look like. Its methods return false at
// anything else, such as null, a name that is unknown or comes twice, or a mistake:
// then encoding/json has to read the file, or to say what is wrong.
type quickReader struct {
	src               io.Reader
	err               error  // of src, io.EOF at the end
	b                 []byte // a part of the file
	at                int    // in b, before what was not read yet
	services, methods repeatedList
}

const (
	quickWindow = 64 << 10 // of the file that a quickReader has at a time, in bytes
	quickClient = 16 << 10 // longer clients are not read quickly, in bytes
)

// readQuickly reads a clients file and hands over one client after the other, which is
// good until the next. If it returns false, also because use did, they do not count.
func readQuickly(src io.Reader, use func(*Client) bool) bool {
	r := &quickReader{src: src, b: make([]byte, 0, quickWindow)}
	r.fill()
	some := false
	var c Client
	ok := r.object(func(name []byte) bool {
		return string(name) == "clients" && !some && r.list(func() bool {
			r.fill()
			some, c = true, Client{}
			return r.client(&c) && use(&c)
		})
	})
	r.fill()
	return ok && len(r.rest()) == 0 && r.err == io.EOF
}

// fill reads on if there may be less than a client left.
func (r *quickReader) fill() {
	if len(r.b)-r.at >= quickClient || r.err != nil {
		return
	}
	r.b = r.b[:copy(r.b[:cap(r.b)], r.b[r.at:])]
	r.at = 0
	for len(r.b) < cap(r.b) && r.err == nil {
		var n int
		n, r.err = r.src.Read(r.b[len(r.b):cap(r.b)])
		r.b = r.b[:len(r.b)+n]
	}
}

func (r *quickReader) client(c *Client) bool {
	return r.object(func(name []byte) bool {
		switch string(name) {
		case "id":
			return r.text(&c.ID)
		case "secrets":
			return quickList(r, &c.Secrets, r.text)
		case "services":
			return r.repeated(&c.Services, &r.services)
		case "all_services":
			return r.flag(&c.AllServices)
		case "ttl":
			return r.duration(&c.TTL)
		case "max_ttl":
			return r.duration(&c.MaxTTL)
		case "expires":
			return r.text(&c.Expires)
		case "from":
			return quickList(r, &c.From, r.text)
		case "methods":
			return r.repeated(&c.Methods, &r.methods)
		case "pyknock":
			return quickList(r, &c.Pyknock, r.text)
		case "fwknop":
			return quickList(r, &c.Fwknop, r.fwknop)
		case "api_keys":
			return quickList(r, &c.APIKeys, r.text)
		case "api_key_hashes":
			return quickList(r, &c.APIKeyHashes, r.text)
		case "allow_remote":
			return r.allowRemote(&c.AllowRemote)
		case "max_grants":
			return r.number(&c.MaxGrants)
		case "allow_weak":
			return r.flag(&c.AllowWeak)
		case "at":
			return r.text(&c.At)
		}
		return false
	})
}

func (r *quickReader) fwknop(dst **FwknopKeys) bool {
	*dst = new(FwknopKeys)
	return r.object(func(name []byte) bool {
		switch string(name) {
		case "encryption":
			return r.text(&(*dst).Encryption)
		case "hmac":
			return r.text(&(*dst).HMAC)
		case "hmac_type":
			return r.text(&(*dst).HMACType)
		}
		return false
	})
}

func (r *quickReader) allowRemote(dst **AllowRemote) bool {
	if *dst != nil {
		return false
	}
	*dst = new(AllowRemote)
	return r.object(func(name []byte) bool {
		switch string(name) {
		case "ipv4":
			return r.number(&(*dst).IPv4)
		case "ipv6":
			return r.number(&(*dst).IPv6)
		}
		return false
	})
}

// rest skips blanks and returns what comes then.
func (r *quickReader) rest() []byte {
	for r.at < len(r.b) && (r.b[r.at] == ' ' || r.b[r.at] == '\n' || r.b[r.at] == '\r' || r.b[r.at] == '\t') {
		r.at++
	}
	return r.b[r.at:]
}

// is reads the byte if it comes next.
func (r *quickReader) is(c byte) bool {
	if rest := r.rest(); len(rest) == 0 || rest[0] != c {
		return false
	}
	r.at++
	return true
}

// object reads an object of at least one member, of which it hands over the name
// when the value is next.
func (r *quickReader) object(value func(name []byte) bool) bool {
	for more := r.is('{'); more; more = r.is(',') {
		name, plain := r.literal()
		if !plain || !r.is(':') || !value(name[1:len(name)-1]) {
			return false
		}
		if r.is('}') {
			return true
		}
	}
	return false
}

// list reads a list, each element of which is read by a function.
func (r *quickReader) list(element func() bool) bool {
	if !r.is('[') {
		return false
	}
	if r.is(']') {
		return true
	}
	for element() {
		if r.is(']') {
			return true
		}
		if !r.is(',') {
			return false
		}
	}
	return false
}

// quickList reads a list into memory.
func quickList[E any](r *quickReader, dst *[]E, element func(*E) bool) bool {
	if len(*dst) > 0 {
		return false
	}
	if *dst == nil {
		*dst = []E{}
	}
	return r.list(func() bool {
		*dst = append(*dst, *new(E))
		return element(&(*dst)[len(*dst)-1])
	})
}

// repeatedList is a list as it stood for the last client. Many have the same ones,
// and share them.
type repeatedList struct {
	json []byte
	list []string
}

func (r *quickReader) repeated(dst *[]string, last *repeatedList) bool {
	before := r.rest()
	if last.list != nil && *dst == nil && bytes.HasPrefix(before, last.json) {
		*dst = last.list
		r.at += len(last.json)
		return true
	}
	begin := r.at
	if !quickList(r, dst, r.text) {
		return false
	}
	*last = repeatedList{bytes.Clone(r.b[begin:r.at]), slices.Clip(*dst)}
	return true
}

// literal reads a string as it stands, in its quotes; nil if there is none. It is
// plain if it has only printable ASCII and no escapes.
func (r *quickReader) literal() (quoted []byte, plain bool) {
	before := r.rest()
	if !r.is('"') {
		return nil, false
	}
	plain = true
	for i := 1; i < len(before); i++ {
		switch c := before[i]; {
		case c == '"':
			r.at += i
			return before[:i+1], plain
		case c == '\\':
			i, plain = i+1, false
		case c < ' ' || c > '~':
			plain = false
		}
	}
	return nil, false
}

func (r *quickReader) text(dst *string) bool {
	quoted, plain := r.literal()
	if plain && *dst == "" {
		*dst = string(quoted[1 : len(quoted)-1])
		return true
	}
	return quoted != nil && *dst == "" && json.Unmarshal(quoted, dst) == nil
}

func (r *quickReader) flag(dst *bool) bool {
	if r.is('t') {
		*dst = true
		return r.word("rue")
	}
	*dst = false
	return r.is('f') && r.word("alse")
}

// word reads what a word goes on with.
func (r *quickReader) word(rest string) bool {
	if !bytes.HasPrefix(r.b[r.at:], []byte(rest)) {
		return false
	}
	r.at += len(rest)
	return true
}

// digits reads the digits of a number, which is not negative.
func (r *quickReader) digits() []byte {
	before := r.rest()
	digits := before[:len(before)-len(bytes.TrimLeft(before, "0123456789"))]
	r.at += len(digits)
	if len(digits) > 1 && digits[0] == '0' {
		return nil
	}
	return digits
}

func (r *quickReader) number(dst *int) bool {
	var err error
	*dst, err = strconv.Atoi(string(r.digits()))
	return err == nil
}

// duration reads a text such as "1h", or nanoseconds.
func (r *quickReader) duration(dst *caddy.Duration) bool {
	value, plain := r.literal()
	if value == nil {
		value, plain = r.digits(), true
	}
	return plain && dst.UnmarshalJSON(value) == nil
}
