// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"errors"
	"strings"
)

// splitShell splits a command as a POSIX shell does: blanks, quotes, backslashes.
// needsShell says that it holds more than that, so that only a shell knows what it
// means.
func splitShell(s string) (words []string, needsShell bool, err error) {
	var word strings.Builder
	in := false // a word has begun
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == ' ' || c == '\t':
			if in {
				words, in = append(words, word.String()), false
				word.Reset()
			}
		case c == '\'':
			end := strings.IndexByte(s[i+1:], '\'')
			if end < 0 {
				return nil, false, errors.New("a quote is not closed")
			}
			word.WriteString(s[i+1 : i+1+end])
			i, in = i+1+end, true
		case c == '"':
			in = true
			for i++; ; i++ {
				if i >= len(s) {
					return nil, false, errors.New("a quote is not closed")
				}
				if s[i] == '"' {
					break
				}
				if s[i] == '\\' && i+1 < len(s) && strings.IndexByte("$`\"\\", s[i+1]) >= 0 {
					i++
				} else if s[i] == '$' || s[i] == '`' {
					needsShell = true
				}
				word.WriteByte(s[i])
			}
		case c == '\\':
			if i++; i >= len(s) {
				return nil, false, errors.New("it ends with a backslash")
			}
			word.WriteByte(s[i])
			in = true
		case strings.IndexByte("|&;<>()$`*?[~!", c) >= 0, c == '#' && !in, c == '=' && len(words) == 0:
			needsShell, in = true, true
			word.WriteByte(c)
		default:
			word.WriteByte(c)
			in = true
		}
	}
	if in {
		words = append(words, word.String())
	}
	if len(words) > 0 && isBuiltin(words[0]) {
		needsShell = true
	}
	return words, needsShell, nil
}

// isBuiltin reports whether a shell does this by itself.
func isBuiltin(name string) bool {
	switch name {
	case ".", ":", "cd", "exec", "eval", "exit", "export", "if", "for", "while", "case", "set", "source", "ulimit", "umask", "unset", "wait", "{", "!":
		return true
	}
	return false
}
