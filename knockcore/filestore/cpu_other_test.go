// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux && !darwin && !freebsd

package filestore

import "time"

func cpuTime() time.Duration { return 0 }
