// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/sequence"
)

// TestSequenceFile: each knock takes the next sequence, until there is none.
func TestSequenceFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sequences")
	if err := os.WriteFile(path, []byte(" 1,2:udp\n 3:udp,4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	k := Knock{Method: knockcore.MethodPortSequence, SequenceFile: path, Interval: -1}
	for _, want := range []string{"#1,2:udp\n 3:udp,4\n", "#1,2:udp\n#3:udp,4\n"} {
		sent, err := new(Sender).Send(t.Context(), "127.0.0.1", 0, k)
		if err != nil || sent.Deliveries[0].Datagrams != 2 {
			t.Fatalf("%+v, %v", sent, err)
		}
		if b, _ := os.ReadFile(path); string(b) != want {
			t.Errorf("the file is %q", b)
		}
	}
	if _, err := new(Sender).Send(t.Context(), "127.0.0.1", 0, k); !errors.Is(err, ErrNotSent) {
		t.Errorf("used up: %v", err)
	}
}

func TestStepErrors(t *testing.T) {
	step := sequence.Step{Protocol: knockcore.TCP, Port: 7000}
	for what, k := range map[string]Knock{
		"no ports": {},
		"both":     {Steps: []sequence.Step{step}, SequenceFile: "x"},
		"port 0":   {Steps: []sequence.Step{{Protocol: knockcore.TCP}}},
		"too long": {Steps: make([]sequence.Step, 33)},
		"closing":  {Steps: []sequence.Step{step}, Close: true},
	} {
		k.Method = knockcore.MethodPortSequence
		if k.Validate() == nil {
			t.Errorf("%s is valid", what)
		}
	}
}
