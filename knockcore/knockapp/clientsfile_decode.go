// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// decodeClients decodes a clients file; errors name the path and the line.
func decodeClients(b []byte, path string) (*ClientsFile, error) {
	content := new(ClientsFile)
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(content); err != nil {
		offset, err := explainJSON(b, err, dec.InputOffset())
		line := 1 + bytes.Count(b[:min(int(offset), len(b))], []byte("\n"))
		return nil, fmt.Errorf("%s:%d: %w", path, line, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("%s: there is something after the end of the JSON object", path)
	}
	return content, nil
}
