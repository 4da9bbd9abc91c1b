// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Lets the page start without a network, only to say so. What the server says about
// somebody is never kept, and nothing but the page is touched.
"use strict";
const cache = "knock-1";
const home = self.registration.scope;
const parts = ["page/offline.html", "page/style.css", "page/offline.js", "page/icon.svg"].map((p) => home + p);

self.addEventListener("install", (e) => {
	e.waitUntil(caches.open(cache).then((c) => c.addAll(parts)).then(() => self.skipWaiting()));
});
self.addEventListener("activate", (e) => e.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (e) => {
	const { request } = e;
	const url = request.url.split(/[?#]/)[0];
	if (request.method !== "GET") return;
	if (request.mode === "navigate" && url === home) {
		e.respondWith(fetch(request).catch(() => caches.match(parts[0])));
	} else if (parts.includes(url)) {
		e.respondWith(fetch(request).then((answer) => {
			if (answer.ok) {
				const copy = answer.clone();
				e.waitUntil(caches.open(cache).then((c) => c.put(url, copy)));
			}
			return answer;
		}).catch(() => caches.match(url)));
	}
});
