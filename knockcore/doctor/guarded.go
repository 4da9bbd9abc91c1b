// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"encoding/json"
	"slices"
)

// GuardedBy finds out which services the modules of a configuration guard: handlers
// and listener wrappers that ask for a frame or a grant, and matchers.
func GuardedBy(config []byte) func(service string) bool {
	var root map[string]any
	_ = json.Unmarshal(config, &root)
	apps, _ := root["apps"].(map[string]any)
	var names []string
	all := false
	note := func(module map[string]any) {
		named := texts(module["service"], module["services"])
		names, all = append(names, named...), all || len(named) == 0
	}
	for app, value := range apps {
		if app != "knock" {
			walk(value, note)
		}
	}
	return func(service string) bool { return all || slices.Contains(names, service) }
}

// walk calls note for each module of ours below v.
func walk(v any, note func(map[string]any)) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			walk(item, note)
		}
	case map[string]any:
		for _, key := range []string{"handler", "wrapper"} {
			if name, _ := v[key].(string); name == "knock" || name == "knocked" {
				note(v)
			}
		}
		for key, value := range v {
			matcher, isObject := value.(map[string]any)
			if isObject && (key == "knock" || key == "knocked") {
				note(matcher)
			}
			walk(value, note)
		}
	}
}

// texts collects the texts among values and lists of them.
func texts(values ...any) (found []string) {
	for _, v := range values {
		switch v := v.(type) {
		case string:
			found = append(found, v)
		case []any:
			found = append(found, texts(v...)...)
		}
	}
	return found
}
