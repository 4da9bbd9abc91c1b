// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0
"use strict";
addEventListener("online", () => location.reload());
