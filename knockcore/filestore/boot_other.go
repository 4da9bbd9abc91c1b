// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux && !darwin && !freebsd

package filestore

import "time"

// systemBoot knows no boot here: grants go by the wall clock, and an unclean end
// always counts as a power loss.
func systemBoot() (string, time.Duration) { return "", 0 }
