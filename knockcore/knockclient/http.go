// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// HTTPKnock knocks by HTTP, at Caddy's handler `knock` or at a Knocker server.
type HTTPKnock struct {
	// URL is where the server is: https://knock.example.com, with or without /knock
	// behind it.
	URL string
	// Key is the API key.
	Key knockcore.Secret
	// TTL is how long to ask for, in whole seconds; 0 leaves it to the server.
	TTL time.Duration
	// Address is the address or network to knock for; "" means the one that the
	// server sees.
	Address string
	// Network is tcp4 or tcp6 to knock over that, "" for whichever works.
	Network string
}

// HTTPGrant is what the server answered.
type HTTPGrant struct {
	// Entry is what was let in, as the server writes it.
	Entry string
	// Expires is when that ends, by the server's clock.
	Expires time.Time
	// For is how long it lasts.
	For time.Duration
}

// HTTPError is an answer that is no success.
type HTTPError struct {
	// Status is the HTTP status.
	Status int
	// Text is what the server says about it, "" if it says nothing.
	Text string
}

// Error tells status and text.
func (e *HTTPError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("the server answered %d %s", e.Status, http.StatusText(e.Status))
	}
	return fmt.Sprintf("the server answered %d: %s", e.Status, e.Text)
}

const (
	// httpTimeout bounds one request.
	httpTimeout = 15 * time.Second
	// maxHTTPAnswer bounds an answer, in bytes.
	maxHTTPAnswer = 64 << 10
)

// Validate reports the first thing wrong.
func (k *HTTPKnock) Validate() error {
	if _, err := k.endpoint("knock"); err != nil {
		return err
	}
	if k.Key.IsZero() {
		return errors.New("there is no API key")
	}
	if strings.ContainsFunc(string(k.Key.Bytes()), func(r rune) bool { return r < ' ' || r > '~' }) {
		return errors.New("the API key has characters other than printable ASCII, which HTTP headers can't carry")
	}
	if k.TTL < 0 || k.TTL%time.Second != 0 {
		return fmt.Errorf("ttl %v is not a positive number of whole seconds", k.TTL)
	}
	switch k.Network {
	case "", "tcp4", "tcp6":
		return nil
	default:
		return fmt.Errorf("unknown network %q; expect tcp4 or tcp6", k.Network)
	}
}

// Clear reports whether the key would travel over a network unencrypted.
func (k *HTTPKnock) Clear() bool {
	u, err := url.Parse(k.URL)
	if err != nil || u.Scheme != "http" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())
}

// endpoint is the URL of an endpoint of the server.
func (k *HTTPKnock) endpoint(name string) (string, error) {
	u, err := url.Parse(k.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return "", fmt.Errorf("%q is not a URL such as https://knock.example.com", k.URL)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("the URL of the server must have no user, query or fragment")
	}
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/knock")
	return u.JoinPath(name).String(), nil
}

// client makes an HTTP client. It follows no redirects: they would take the key
// elsewhere.
func (k *HTTPKnock) client() *http.Client {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if k.Network != "" {
				network = k.Network
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
	return &http.Client{
		Transport: transport, Timeout: httpTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Knock knocks once. The error is an *HTTPError if the server answered.
func (k *HTTPKnock) Knock(ctx context.Context) (*HTTPGrant, error) {
	if err := k.Validate(); err != nil {
		return nil, err
	}
	order := make(map[string]any)
	if k.TTL > 0 {
		order["ttl"] = int64(k.TTL / time.Second)
	}
	if k.Address != "" {
		order["ip_address"] = k.Address
	}
	resp, answer, err := k.post(ctx, "knock", string(k.Key.Bytes()), order)
	if err != nil {
		return nil, err
	}
	return readHTTPAnswer(resp, answer)
}

// post sends JSON to an endpoint, with the key if there is one, and reads the
// answer: its beginning, if it is longer than answers are.
func (k *HTTPKnock) post(ctx context.Context, endpoint, key string, order any) (*http.Response, []byte, error) {
	target, err := k.endpoint(endpoint)
	if err != nil {
		return nil, nil, err
	}
	body, err := json.Marshal(order)
	if err != nil {
		return nil, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("X-Api-Key", key)
	}
	resp, err := k.client().Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxHTTPAnswer))
	return resp, answer, err
}

func readHTTPAnswer(resp *http.Response, answer []byte) (*HTTPGrant, error) {
	var v struct {
		Entry     string `json:"whitelisted_entry"`
		ExpiresAt int64  `json:"expires_at"`
		ExpiresIn int64  `json:"expires_in_seconds"`
		Error     string `json:"error"`
	}
	err := json.Unmarshal(answer, &v)
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode <= 399:
		return nil, &HTTPError{resp.StatusCode, printable("it is elsewhere: " + resp.Header.Get("Location"))}
	case resp.StatusCode != http.StatusOK:
		return nil, &HTTPError{resp.StatusCode, printable(v.Error)}
	case err != nil || v.Entry == "" || v.ExpiresIn < 0 || v.ExpiresIn > int64(1<<62/time.Second):
		return nil, &HTTPError{resp.StatusCode, "but not as a server for knocks does"}
	}
	return &HTTPGrant{printable(v.Entry), time.Unix(v.ExpiresAt, 0), time.Duration(v.ExpiresIn) * time.Second}, nil
}

// OwnAddress asks the server's knock page which address it sees. It needs no key.
func (k *HTTPKnock) OwnAddress(ctx context.Context) (netip.Addr, error) {
	target, err := k.endpoint("page/address")
	if err != nil {
		return netip.Addr{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return netip.Addr{}, err
	}
	resp, err := k.client().Do(req)
	if err != nil {
		return netip.Addr{}, err
	}
	defer resp.Body.Close()
	var v struct {
		Address netip.Addr `json:"address"`
		Error   string     `json:"error"`
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, maxHTTPAnswer)).Decode(&v)
	switch {
	case resp.StatusCode != http.StatusOK:
		return netip.Addr{}, &HTTPError{resp.StatusCode, printable(v.Error)}
	case err != nil || !v.Address.IsValid():
		return netip.Addr{}, &HTTPError{resp.StatusCode, "but not as a knock page does"}
	}
	return v.Address.Unmap().WithZone(""), nil
}

// Verify asks whether the server would let us in, from the address that it sees.
// known is false if it does not say.
func (k *HTTPKnock) Verify(ctx context.Context) (in, known bool) {
	target, err := k.endpoint("verify")
	if err != nil {
		return false, false
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return false, false
	}
	resp, err := k.client().Do(req)
	if err != nil {
		return false, false
	}
	_ = resp.Body.Close()
	in = resp.StatusCode == http.StatusOK
	return in, in || resp.StatusCode == http.StatusUnauthorized
}

// printable makes what a server said fit for terminals: short, and without control
// characters.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r <= 0x9f || r == '\u2028' || r == '\u2029' {
			return '?'
		}
		return r
	}, s)
	if runes := []rune(s); len(runes) > 200 {
		s = string(runes[:200]) + "…"
	}
	return s
}
