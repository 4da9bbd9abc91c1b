// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient_test

import (
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

// A Dialer takes the place of net.Dialer wherever one is asked for.
func ExampleDialer() {
	secret, err := knockcore.ParseSecret("base64:c29tZXRoaW5nIG9mIDMyIGJ5dGVzIGJ5IGtleWdlbiE=")
	if err != nil {
		fmt.Println(err)
		return
	}
	d := &knockclient.Dialer{Config: knockclient.Config{ClientID: "alice", Secret: secret, ServerProof: true}}

	client := &http.Client{Transport: &http.Transport{DialContext: d.DialContext}}
	resp, err := client.Get("http://guarded.example.org:8080/")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	_, _ = io.Copy(os.Stdout, resp.Body)
}

// The settings of a profile, as `caddy-knock profile add` writes them.
func ExampleProfiles_Find() {
	profiles, err := knockclient.DefaultProfiles()
	if err != nil {
		fmt.Println(err)
		return
	}
	_, profile, err := profiles.Find("alice", "ssh.example.org")
	if err != nil {
		fmt.Println(err)
		return
	}
	d := &knockclient.Dialer{Config: profile.Config()}
	conn, err := d.Dial("tcp", "ssh.example.org:2222")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
}
