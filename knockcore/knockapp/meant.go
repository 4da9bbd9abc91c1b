// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// expect is the end of a message about a word that is none of those known: the one
// that was probably meant, if any, and all of them.
func expect(word string, known []string) string {
	list := strings.Join(known, ", ")
	if near := nearest(word, known); near != "" {
		return "did you mean " + near + "? Expect " + list
	}
	return "expect " + list
}

// nearest is the known word that is at most two changed letters away, and at most half
// of them; "" if there is none.
func nearest(word string, known []string) string {
	best, found := min(2, len(word)/2)+1, ""
	for _, k := range known {
		if d := distance(strings.ToLower(word), k, best); d < best {
			best, found = d, k
		}
	}
	return found
}

// distance is the Levenshtein distance of two words, or something from limit up if it
// is not less than limit.
func distance(a, b string, limit int) int {
	if d := len(a) - len(b); d >= limit || -d >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			above := row[j+1]
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(above+1, row[j]+1, diagonal+cost)
			diagonal = above
		}
	}
	return row[len(b)]
}

// meantDuration is how to write what people write as 5 min or 8hours; "" if that is
// not what text is.
func meantDuration(text string) string {
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	unit := strings.ToLower(text[len(number):])
	for short, words := range map[string]string{
		"s": " s sec secs second seconds ", "m": " m min mins minute minutes ",
		"h": " h hr hrs hour hours ", "d": " d day days ",
	} {
		if unit == "" || !strings.Contains(words, " "+unit+" ") {
			continue
		}
		if d, err := caddy.ParseDuration(number + short); err == nil && d > 0 {
			return number + short
		}
	}
	return ""
}
