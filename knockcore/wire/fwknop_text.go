// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"crypto/rand"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Bounds of the fields (fwknop-spa.md section 2).
const (
	fwknopRandLen     = 16
	fwknopMaxTimeLen  = 12
	fwknopMaxVersion  = 8
	fwknopMaxUserText = 64  // base64 characters
	fwknopMaxText     = 256 // base64 characters
	fwknopMaxNATHost  = 254
)

// fwknopRefuse refuses an authentic packet.
func fwknopRefuse(reason knockcore.Reason, detail string) error {
	return &knockcore.Refusal{Reason: reason, Detail: detail}
}

func fwknopMalformed(detail string) error {
	return fwknopRefuse(knockcore.ReasonMalformed, detail)
}

// parseFwknopPlain reads the decrypted text (section 1.2 steps 4 and 5): whether
// the key was right, the digest, then the fields. The error is a fresh
// *knockcore.Refusal. A command is returned along with ReasonUnsupported.
func parseFwknopPlain(plain []byte) (*Fwknop, error) {
	if len(plain) < fwknopMinPlain || !isDigits(string(plain[:fwknopRandLen])) || plain[fwknopRandLen] != ':' {
		return nil, fwknopRefuse(knockcore.ReasonAuthFailed, "the HMAC fits, but the text does not begin with 16 digits: wrong encryption key, or a mode other than CBC")
	}
	if bytes.ContainsFunc(plain, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
		return nil, fwknopRefuse(knockcore.ReasonAuthFailed, "the decrypted text is not printable ASCII")
	}
	end := bytes.LastIndexByte(plain, ':')
	text, sum := plain[:end], string(plain[end+1:])
	for i := range fwknopDigests {
		d := &fwknopDigests[i]
		if len(sum) != d.textLen() || d.sumText(text) != sum {
			continue
		}
		f, err := parseFwknopFields(string(text))
		if f != nil {
			f.DigestType = d.name
		}
		return f, err
	}
	return nil, fwknopRefuse(knockcore.ReasonAuthFailed, "the HMAC fits, but no digest fits the decrypted text")
}

// parseFwknopFields reads the text before the digest (section 2).
func parseFwknopFields(text string) (*Fwknop, error) {
	field := strings.Split(text, ":")
	if len(field) < 6 {
		return nil, fwknopMalformed("too few fields")
	}
	f := &Fwknop{Rand: field[0], Version: field[3]}
	if len(f.Rand) != fwknopRandLen || !isDigits(f.Rand) {
		return nil, fwknopMalformed("the random value is not 16 digits")
	}
	var ok bool
	if f.User, ok = decodeFwknopText(field[1], fwknopMaxUserText); !ok || !validFwknopUser(f.User) {
		return nil, fwknopMalformed("the user name is empty, too long or has characters that are not allowed")
	}
	if f.Time, ok = parseDecimal(field[2], fwknopMaxTimeLen); !ok {
		return nil, fwknopMalformed("the time is not a number of up to 12 digits")
	}
	if f.Version == "" || len(f.Version) > fwknopMaxVersion {
		return nil, fwknopMalformed("the version does not have 1 to 8 characters")
	}
	msgType, ok := parseDecimal(field[4], 2)
	if !ok {
		return nil, fwknopMalformed("the message type is not a number")
	}
	if msgType > FwknopLocalNATTimeout {
		return nil, fwknopRefuse(knockcore.ReasonUnsupported, "the message type is not one of 0 to 6")
	}
	f.Type = int(msgType)
	message, ok := decodeFwknopText(field[5], fwknopMaxText)
	if !ok {
		return nil, fwknopMalformed("the message is not base64 or too long")
	}
	if err := f.parseExtra(field[6:]); err != nil {
		return nil, err
	}
	if err := f.parseMessage(message); err != nil {
		return nil, err
	}
	if f.Type == FwknopCommand {
		return f, fwknopRefuse(knockcore.ReasonUnsupported, "command messages are not accepted")
	}
	return f, nil
}

// parseExtra reads the fields after the message: NAT target, the optional server
// auth, timeout.
func (f *Fwknop) parseExtra(field []string) error {
	hasNAT, hasTimeout := fwknopTypeHas(f.Type)
	least := 0
	var nat, timeout string
	if hasNAT {
		least++
	}
	if hasTimeout {
		least++
	}
	if len(field) < least || len(field) > least+1 {
		return fwknopMalformed("too few or too many fields for the message type")
	}
	if hasNAT {
		nat, field = field[0], field[1:]
	}
	if hasTimeout {
		timeout, field = field[len(field)-1], field[:len(field)-1]
	}
	var ok bool
	if hasNAT {
		if f.NAT, ok = decodeFwknopText(nat, fwknopMaxText); !ok || !validFwknopNAT(f.NAT) {
			return fwknopMalformed("the NAT target is not host,port")
		}
	}
	if hasTimeout {
		seconds, ok := parseDecimal(timeout, 5)
		if !ok || seconds > int64(FwknopMaxTimeout/time.Second) {
			return fwknopMalformed("the timeout is not a number of seconds up to 65536")
		}
		f.Timeout = time.Duration(seconds) * time.Second
	}
	if len(field) == 1 {
		if f.ServerAuth, ok = decodeFwknopText(field[0], fwknopMaxText); !ok {
			return fwknopMalformed("the server auth field is not base64")
		}
	}
	return nil
}

// encodeFields writes the text before the digest and checks it by reading it
// back, so that whatever Seal makes can be opened.
func (f *Fwknop) encodeFields() ([]byte, error) {
	random, version := f.Rand, f.Version
	if random == "" {
		random = newFwknopRand()
	}
	if version == "" {
		version = "3.0.0"
	}
	if strings.ContainsFunc(version, func(r rune) bool { return r < 0x20 || r > 0x7e || r == ':' }) {
		return nil, errors.New("the version has a colon or an unprintable character")
	}
	if f.Timeout%time.Second != 0 {
		return nil, errors.New("the timeout is not in whole seconds")
	}
	message, err := f.encodeMessage()
	if err != nil {
		return nil, err
	}
	field := []string{
		random, encodeFwknopText(f.User), strconv.FormatInt(f.Time, 10), version,
		strconv.Itoa(f.Type), encodeFwknopText(message),
	}
	hasNAT, hasTimeout := fwknopTypeHas(f.Type)
	if !hasNAT && f.NAT != "" || !hasTimeout && f.Timeout != 0 {
		return nil, errors.New("the message type has no NAT target or no timeout, but one is given")
	}
	if hasNAT {
		field = append(field, encodeFwknopText(f.NAT))
	}
	if f.ServerAuth != "" {
		field = append(field, encodeFwknopText(f.ServerAuth))
	}
	if hasTimeout {
		field = append(field, strconv.FormatInt(int64(f.Timeout/time.Second), 10))
	}
	text := strings.Join(field, ":")
	g, err := parseFwknopFields(text)
	if refusal := (*knockcore.Refusal)(nil); g == nil && errors.As(err, &refusal) {
		return nil, errors.New(refusal.Detail)
	}
	return []byte(text), nil
}

// newFwknopRand draws 16 decimal digits.
func newFwknopRand() string {
	digits := make([]byte, 0, fwknopRandLen)
	var b [1]byte
	for len(digits) < fwknopRandLen {
		_, _ = rand.Read(b[:]) // never fails
		if b[0] < 250 {        // a multiple of 10, so that all digits are alike
			digits = append(digits, '0'+b[0]%10)
		}
	}
	return string(digits)
}

func encodeFwknopText(s string) string { return fwknopBase64.EncodeToString([]byte(s)) }

// decodeFwknopText reads a field of unpadded base64 that is not empty.
func decodeFwknopText(s string, maxLen int) (string, bool) {
	if s == "" || len(s) > maxLen || strings.ContainsAny(s, "\r\n") { // the decoder skips newlines
		return "", false
	}
	b, err := fwknopBase64.DecodeString(s)
	return string(b), err == nil && len(b) > 0
}
