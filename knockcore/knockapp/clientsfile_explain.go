// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
)

// explainJSON says in the words of a clients file what encoding/json found wrong with
// it, and where. The decoder stands at offset by then, which may be long after it.
func explainJSON(file []byte, err error, offset int64) (int64, error) {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return wrong.Offset, explainType(wrong)
	}
	quoted, found := strings.CutPrefix(err.Error(), "json: unknown field ")
	if !found {
		return offset, err
	}
	if at := regexp.MustCompile(regexp.QuoteMeta(quoted) + `\s*:`).FindIndex(file); at != nil {
		offset = int64(at[0])
	}
	if near := nearest(strings.Trim(quoted, `"`), fieldNames(clientsFileTypes...)); near != "" {
		return offset, fmt.Errorf("unknown field %s; did you mean %q?", quoted, near)
	}
	return offset, fmt.Errorf("unknown field %s; expect %s", quoted, strings.Join(fieldNames(clientsFileTypes[0]), ", "))
}

// clientsFileTypes are those that a clients file is made of.
var clientsFileTypes = []reflect.Type{
	reflect.TypeFor[Client](), reflect.TypeFor[ClientsFile](), reflect.TypeFor[FwknopKeys](), reflect.TypeFor[AllowRemote](),
}

// fieldNames are the names of the types' fields in JSON.
func fieldNames(types ...reflect.Type) (names []string) {
	for _, t := range types {
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			if name != "at" { // the adapter's, not for people
				names = append(names, name)
			}
		}
	}
	return names
}

func explainType(wrong *json.UnmarshalTypeError) error {
	name := wrong.Field[strings.LastIndex(wrong.Field, ".")+1:]
	found, _, _ := strings.Cut(wrong.Value, " ") // without a number itself
	if found == "array" {
		found = "list"
	}
	switch {
	case wrong.Field == "":
		return fmt.Errorf(`the file must hold an object, {"clients": [...]}, not %s %s`, article(found), found)
	case wrong.Type.Kind() == reflect.Slice:
		return fmt.Errorf("%s must be a list, such as %s, not %s %s", name, exampleList(name, wrong.Type.Elem()), article(found), found)
	}
	expected := map[reflect.Kind]string{
		reflect.String: `a string such as "..."`, reflect.Bool: "true or false", reflect.Int: "a whole number", reflect.Struct: "an object {...}",
	}[wrong.Type.Kind()]
	if expected == "" {
		return wrong
	}
	for _, t := range clientsFileTypes {
		for i := range t.NumField() {
			f := t.Field(i)
			if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag == name && f.Type.Kind() == reflect.Slice {
				name = "each of " + name
			}
		}
	}
	if wrong.Type.Kind() == reflect.Int && found == "number" {
		return fmt.Errorf("%s must be %s", name, expected)
	}
	return fmt.Errorf("%s must be %s, not %s %s", name, expected, article(found), found)
}

func article(noun string) string {
	if strings.HasPrefix(noun, "o") {
		return "an"
	}
	return "a"
}

func exampleList(name string, element reflect.Type) string {
	switch {
	case name == "secrets":
		return `["base64:…"]`
	case element.Kind() == reflect.String:
		return `["..."]`
	default:
		return "[{...}]"
	}
}
