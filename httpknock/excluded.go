// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"fmt"
	"net/http"
	"strings"
)

// excluded are the paths that /verify lets through for everybody.
type excluded struct {
	everywhere []string
	byHost     map[string][]string // of X-Forwarded-Host; * is any
}

// newExcluded checks the paths. A path stands for itself and all below it; a slash
// at its end does not matter.
func newExcluded(everywhere []string, byHost map[string][]string) (e excluded, err error) {
	if e.everywhere, err = cleanPaths(everywhere); err != nil {
		return e, err
	}
	e.byHost = make(map[string][]string, len(byHost))
	for host, paths := range byHost {
		if host == "" || strings.ContainsAny(host, " /:") {
			return e, fmt.Errorf("host %q: write a host name without port, or * for any", host)
		}
		if e.byHost[strings.ToLower(host)], err = cleanPaths(paths); err != nil {
			return e, err
		}
	}
	return e, nil
}

func cleanPaths(paths []string) ([]string, error) {
	clean := make([]string, len(paths))
	for i, p := range paths {
		if !strings.HasPrefix(p, "/") || strings.ContainsAny(p, "?#") || !plainPath(p) {
			return nil, fmt.Errorf("excluded path %q: write it as it appears in URLs, such as /public: beginning with a slash, without dot segments, double slashes, backslashes and encoded separators", p)
		}
		clean[i] = strings.TrimSuffix(p, "/")
	}
	return clean, nil
}

// has reports whether the path of the request that a proxy asks about is excluded.
// It comes from X-Forwarded-Uri of a trusted peer, otherwise it is that of r itself.
func (e *excluded) has(r *http.Request) bool {
	if len(e.everywhere) == 0 && len(e.byHost) == 0 {
		return false
	}
	uri, host := r.URL.EscapedPath(), ""
	if fromProxy(r) {
		switch lines := r.Header["X-Forwarded-Uri"]; {
		case len(lines) > 1:
			return false // which of them the backend is asked for is anybody's guess
		case len(lines) == 1 && lines[0] != "":
			uri = lines[0]
		}
		host = forwardedHost(r.Header["X-Forwarded-Host"])
	}
	if cut := strings.IndexAny(uri, "?#"); cut >= 0 {
		uri = uri[:cut]
	}
	if !strings.HasPrefix(uri, "/") || !plainPath(uri) {
		return false
	}
	if below(e.everywhere, uri) {
		return true
	}
	return host != "" && (below(e.byHost[host], uri) || below(e.byHost["*"], uri))
}

// forwardedHost is the first host of X-Forwarded-Host, without port, "" if it is
// not clear.
func forwardedHost(lines []string) string {
	if len(lines) != 1 {
		return ""
	}
	host, _, _ := strings.Cut(lines[0], ",")
	host = strings.ToLower(strings.Trim(host, " \t"))
	if strings.HasPrefix(host, "[") {
		host, _, _ = strings.Cut(host[1:], "]")
		return host
	}
	host, _, _ = strings.Cut(host, ":")
	return host
}

func below(paths []string, uri string) bool {
	for _, p := range paths {
		if rest, ok := strings.CutPrefix(uri, p); ok && (rest == "" || rest[0] == '/') {
			return true
		}
	}
	return false
}

// plainPath reports whether every server takes an undecoded path for the same: no
// encoded separators, dots or percent signs, no backslashes, no empty and no dot
// segments, also not with parameters behind them.
func plainPath(p string) bool {
	lower := strings.ToLower(p)
	for _, trick := range []string{"%2f", "%5c", "%2e", "%25", "%3b", "%00", "//", `\`} {
		if strings.Contains(lower, trick) {
			return false
		}
	}
	for segment := range strings.SplitSeq(p, "/") {
		segment, _, _ = strings.Cut(segment, ";")
		if segment == "." || segment == ".." {
			return false
		}
	}
	return !strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r == 0x7f })
}
