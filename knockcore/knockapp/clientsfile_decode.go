// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
)

// decodeApart is how many bytes of clients a processor decodes at least.
const decodeApart = 32 << 10

// decodeClients decodes a clients file; errors name the path and the line. The
// clients of a large file are decoded by all processors.
func decodeClients(b []byte, path string) (*ClientsFile, error) {
	if list, ok := decodeTogether(b, runtime.GOMAXPROCS(0)); ok {
		return &ClientsFile{list}, nil
	}
	content := new(ClientsFile)
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(content); err != nil {
		line := 1 + bytes.Count(b[:min(int(dec.InputOffset()), len(b))], []byte("\n"))
		return nil, fmt.Errorf("%s:%d: %w", path, line, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("%s: there is something after the end of the JSON object", path)
	}
	return content, nil
}

// decodeTogether divides the list of clients at commas and decodes the parts at the
// same time. Parts that all are lists by themselves, and not empty, make up the
// list, whatever is between them; if one is not, a comma of something else was
// taken, or the file has a mistake, and nothing is returned.
func decodeTogether(b []byte, processors int) (all []*Client, ok bool) {
	for _, token := range []string{"{", `"clients"`, ":", "["} {
		if b, ok = bytes.CutPrefix(bytes.TrimLeft(b, jsonBlank), []byte(token)); !ok {
			return nil, false
		}
	}
	for _, token := range []string{"}", "]"} {
		if b, ok = bytes.CutSuffix(bytes.TrimRight(b, jsonBlank), []byte(token)); !ok {
			return nil, false
		}
	}
	parts := divideList(b, min(processors, len(b)/decodeApart))
	if len(parts) < 2 {
		return nil, false
	}
	decoded := make([][]*Client, len(parts))
	together(len(parts), func(i int) { decoded[i] = decodeList(parts[i]) })
	for _, list := range decoded {
		if len(list) == 0 {
			return nil, false
		}
		all = append(all, list...)
	}
	return all, true
}

const jsonBlank = " \t\r\n"

// divideList divides at commas behind objects.
func divideList(b []byte, n int) (parts [][]byte) {
	size := len(b) / max(1, n)
	for at := size; at < len(b) && len(parts) < n-1; {
		end := bytes.IndexByte(b[at:], '}')
		if end < 0 {
			break
		}
		at += end + 1
		if rest := bytes.TrimLeft(b[at:], jsonBlank); len(rest) > 0 && rest[0] == ',' {
			parts = append(parts, b[:at])
			b, at = rest[1:], size
		}
	}
	return append(parts, b)
}

// decodeList decodes what stands between the brackets of a list, nil if it is none.
func decodeList(b []byte) (list []*Client) {
	dec := json.NewDecoder(io.MultiReader(bytes.NewReader([]byte{'['}), bytes.NewReader(b), bytes.NewReader([]byte{']'})))
	dec.DisallowUnknownFields()
	if _, err := dec.Token(); err != nil {
		return nil
	}
	for dec.More() {
		var c *Client
		if dec.Decode(&c) != nil {
			return nil
		}
		list = append(list, c)
	}
	if _, err := dec.Token(); err != nil {
		return nil
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil
	}
	return list
}
