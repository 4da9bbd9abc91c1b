// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package doctor

import "context"

func checkHost(context.Context, *Plan) []Finding {
	return []Finding{{ID: "platform", Level: Note, Text: "the host's own checks and the proof from outside need Linux"}}
}

func prove(context.Context, *Plan) ([]Proof, []Finding) { return nil, nil }
