// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// TestDecodeTogether: a list that is decoded in parts is the list, and what is no
// list of clients is left to the one who tells what is wrong.
func TestDecodeTogether(t *testing.T) {
	clients := func(n int, client, between string) string {
		all := make([]string, n)
		for i := range all {
			all[i] = fmt.Sprintf(client, i)
		}
		return strings.Join(all, between)
	}
	list := func(n int, between string) string {
		return clients(n, `{"id":"c%d","secrets":["a secret } of \"somebody\""],"fwknop":[{"hmac":"]} x"}]}`, between)
	}
	const many = 3000 // more than decodeApart for each of the processors
	for _, test := range []struct {
		name, file string
		ok         bool
	}{
		{"dense", `{"clients":[` + list(many, ",") + `]}`, true},
		{"with blanks", " {\n\t\"clients\" : [ " + list(many, " ,\r\n") + " ]\n}\n", true},
		{"null", `{"clients":[` + list(many, ",") + `,null,` + list(many, ",") + `]}`, true},
		{"small", `{"clients":[` + list(3, ",") + `]}`, false},
		{"empty", `{"clients":[` + strings.Repeat(" ", 1<<20) + `]}`, false},
		{"two commas", `{"clients":[` + list(many, ",") + `,,` + list(many, ",") + `]}`, false},
		{"comma at the end", `{"clients":[` + list(many, ",") + `,]}`, false},
		{"no comma", `{"clients":[` + list(many, ",") + list(many, ",") + `]}`, false},
		{"unknown field", `{"clients":[` + list(many, ",") + `,{"name":"x"}]}`, false},
		{"another key behind", `{"clients":[` + list(many, ",") + `],"more":[]}`, false},
		{"the key twice", `{"clients":[` + list(many, ",") + `],"clients":[` + list(many, ",") + `]}`, false},
		{"another key before", `{"more":1,"clients":[` + list(many, ",") + `]}`, false},
		{"two objects", `{"clients":[` + list(many, ",") + `]}{"clients":[` + list(many, ",") + `]}`, false},
		{"cut short", `{"clients":[` + list(many, ","), false},
		{"no list", `{"clients":{` + list(many, ",") + `}}`, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var want ClientsFile
			err := json.Unmarshal([]byte(test.file), &want)
			for _, processors := range []int{2, 3, 8} {
				got, ok := decodeTogether([]byte(test.file), processors)
				if ok != test.ok {
					t.Fatalf("%d processors: %v", processors, ok)
				}
				if ok && (err != nil || !reflect.DeepEqual(got, want.Clients)) {
					t.Errorf("%d processors: %d clients, want %d, %v", processors, len(got), len(want.Clients), err)
				}
			}
		})
	}
	// Commas of something else may be met or not: what comes of it is right.
	for _, client := range []string{`{"id":"c%d","secrets":["},{","}"," } , "]}`, `{"fwknop":[{"hmac":"%d"},{"hmac":"y"}]}`, `{"id":"%d},{"}`} {
		file := []byte(`{"clients":[` + clients(many, client, ",") + `]}`)
		got, err := decodeClients(file, "clients.json")
		var want ClientsFile
		if wantErr := json.Unmarshal(file, &want); err != nil || wantErr != nil || !reflect.DeepEqual(got.Clients, want.Clients) {
			t.Errorf("%s: %v, %v", client, err, wantErr)
		}
		for processors := range 20 {
			if got, ok := decodeTogether(file, processors); ok && !reflect.DeepEqual(got, want.Clients) {
				t.Errorf("%s: %d processors: %d clients", client, processors, len(got))
			}
		}
	}
	if _, ok := decodeTogether([]byte(`{"clients":[`+list(many, ",")+`]}`), 1); ok {
		t.Error("one processor divided the list")
	}
}
