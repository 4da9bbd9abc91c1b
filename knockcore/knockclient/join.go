// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Invitation is a link by which a device gets a key: of `caddy knock invite`.
type Invitation struct {
	// URL is where the knock page is.
	URL string
	// Token is good once.
	Token knockcore.Secret
}

// Joined is what a device gets for an invitation.
type Joined struct {
	// Client is whose device it is now, Device its own name at the server.
	Client, Device string
	// Key is its API key.
	Key knockcore.Secret
}

// ParseInvitation reads a link. Errors contain nothing of the token.
func ParseInvitation(link string) (*Invitation, error) {
	u, err := url.Parse(strings.TrimSpace(link))
	if err != nil {
		return nil, errors.New("the invitation is not a link")
	}
	token := u.Fragment
	u.Fragment, u.RawFragment = "", ""
	if u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || !strings.HasSuffix(u.Path, "/join") {
		return nil, errors.New("the invitation is not a link such as https://knock.example.com/join#…")
	}
	if token == "" {
		return nil, errors.New("the link has nothing behind the #; in a shell, put it in quotes")
	}
	u.Path = strings.TrimSuffix(u.Path, "join")
	return &Invitation{u.String(), knockcore.NewSecret([]byte(token))}, nil
}

// Join uses the invitation up. name is what the device is called in lists. The error
// is an *HTTPError if the server answered.
func (i *Invitation) Join(ctx context.Context, name string) (*Joined, error) {
	knock := &HTTPKnock{URL: i.URL}
	resp, answer, err := knock.post(ctx, "join", "", map[string]string{"token": string(i.Token.Bytes()), "name": name})
	if err != nil {
		return nil, err
	}
	var v struct{ Client, Device, Key, Error string }
	err = json.Unmarshal(answer, &v)
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, &HTTPError{resp.StatusCode, printable(v.Error)}
	case err != nil || v.Key == "":
		return nil, &HTTPError{resp.StatusCode, "but not as a server for knocks does"}
	}
	if err := knockcore.ValidateAPIKey(v.Key); err != nil {
		return nil, fmt.Errorf("the server gave a key that is none: %w", err)
	}
	return &Joined{printable(v.Client), printable(v.Device), knockcore.NewSecret([]byte(v.Key))}, nil
}
