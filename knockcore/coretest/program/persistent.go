// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package program

import (
	"errors"
	"net/http"
	"syscall"
)

// Persistent asks again when a connection is reset before the answer. On Linux Caddy
// listens anew (SO_REUSEPORT) before it closes what it listened on before: what
// connected to the old socket during a reload and was not accepted yet is reset.
// Nobody read such a request, so it may have any method.
func Persistent(next http.RoundTripper) http.RoundTripper { return persistent{next} }

type persistent struct{ next http.RoundTripper }

func (p persistent) RoundTrip(req *http.Request) (*http.Response, error) {
	for again := 3; ; again-- {
		resp, err := p.next.RoundTrip(req)
		reset := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
		if !reset || again == 0 || req.Context().Err() != nil {
			return resp, err
		}
		if req.Body != nil && req.Body != http.NoBody {
			if req.GetBody == nil {
				return resp, err
			}
			body, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			req = req.Clone(req.Context())
			req.Body = body
		}
	}
}
