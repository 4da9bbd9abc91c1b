// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Makes the page live: without this script it works too, one page load a step.
// The server renders; here its answers take the place of what is shown.
"use strict";
(() => {
	const $ = (id) => document.getElementById(id);
	const main = () => $("main");
	const kept = {
		get: (name) => { try { return localStorage.getItem("knock." + name) || ""; } catch { return ""; } },
		set: (name, value) => { try { localStorage.setItem("knock." + name, value); } catch { /* private window */ } },
	};
	let skew = 0; // of our clock against the server's
	let busy = false, tried = 0, gap = 1000, left = "", last = Promise.resolve();

	const seconds = (ms) => Math.max(0, Math.ceil(ms / 1000));
	const two = (n) => String(n).padStart(2, "0");
	const clock = (s) => s >= 172800 ? Math.floor(s / 86400) + " days" : s >= 3600
		? Math.floor(s / 3600) + ":" + two(Math.floor(s / 60) % 60) + ":" + two(s % 60)
		: two(Math.floor(s / 60)) + ":" + two(s % 60);

	// say tells those who don't see the page.
	const say = (text) => { $("live").textContent = text; };

	const offline = (text) => {
		$("offline").textContent = text;
		$("offline").hidden = !text;
	};

	// dress adds to what the server rendered what only a script can.
	function dress() {
		const m = main();
		skew = Number(m.dataset.now) - Date.now();
		for (const t of m.querySelectorAll("time")) {
			const at = new Date(t.dateTime);
			const today = at.toDateString() === new Date().toDateString();
			t.textContent = at.toLocaleString([], today ? { hour: "2-digit", minute: "2-digit" } : { weekday: "short", hour: "2-digit", minute: "2-digit" });
		}
		if ($("auto")) {
			$("auto-field").hidden = false;
			$("auto").checked = kept.get("auto") === "1";
		}
		const ttl = $("ttl");
		if (ttl && [...ttl.options].some((o) => o.value === kept.get("ttl"))) ttl.value = kept.get("ttl");
		tick();
	}

	// tick counts down.
	function tick() {
		const now = Date.now() + skew;
		let over = false;
		for (const e of main().querySelectorAll("[data-expires]")) {
			const ms = Number(e.dataset.expires) - now;
			e.querySelector("[data-left]").textContent = clock(seconds(ms));
			const arc = e.querySelector(".left");
			if (arc) arc.setAttribute("stroke-dashoffset", Math.min(100, Math.max(0, 100 - 100 * ms / Number(e.dataset.of))).toFixed(2));
			if (ms <= 0) over = true;
		}
		const ring = main().querySelector(".ring[data-expires]");
		if (busy) return;
		if (ring && auto() && Number(ring.dataset.expires) - now < Math.max(2000, Number(ring.dataset.of) / 10)) keep();
		else if (over) refresh();
	}

	const auto = () => kept.get("auto") === "1" && "known" in main().dataset;

	// keep opens again by itself, after failures less and less often.
	async function keep() {
		if (!navigator.onLine || Date.now() - tried < gap) return;
		tried = Date.now();
		const form = new FormData();
		form.set("do", "open");
		form.set("ttl", kept.get("ttl"));
		gap = await send(form) ? 1000 : Math.min(60000, 2 * gap);
	}

	// show puts an answer of the server in the place of what is shown.
	function show(html) {
		const doc = new DOMParser().parseFromString(html, "text/html");
		const next = doc.querySelector("main[data-knock]");
		if (!next) return false;
		const focus = document.activeElement && document.activeElement.id;
		const open = [...document.querySelectorAll("details[open]")].map((d) => d.id);
		const address = $("address") && $("address").value;
		const was = "here" in main().dataset;
		document.title = doc.title;
		document.querySelector("header").replaceWith(doc.querySelector("header"));
		main().replaceWith(next);
		for (const id of open) if ($(id)) $(id).open = true;
		if ($("address") && address && next.querySelector(".bad")) $("address").value = address;
		dress();
		other();
		const here = "here" in next.dataset;
		if (focus) ($(focus) || $("extend") || $("open") || document.body).focus({ preventScroll: true });
		const text = [...next.querySelectorAll(".note")].map((n) => n.textContent).join(" ");
		if (text) say(text);
		else if (here !== was) say(here ? "Open " + next.querySelector(".until").textContent : "Closed");
		return true;
	}

	// load asks the server, one question after the other: what somebody taps counts
	// while another answer is on its way.
	const load = (form) => last = last.then(() => ask(form));

	async function ask(form) {
		busy = true;
		main().setAttribute("aria-busy", "true");
		try {
			const answer = await fetch("./", { method: form ? "POST" : "GET", body: form && new URLSearchParams(form), cache: "no-store" });
			const shown = show(await answer.text());
			offline(shown ? "" : "The server did not answer as it should. Try again later.");
			return shown;
		} catch {
			offline(navigator.onLine ? "The server can’t be reached." : "You are offline. What is open stays open until its time is over.");
			return false;
		} finally {
			busy = false;
			main().removeAttribute("aria-busy");
		}
	}

	const refresh = () => load(null);

	// send does what a button says and, when it opens for us, for our address of the
	// other kind too.
	async function send(form) {
		if (!await load(form) || main().querySelector(".bad")) return false;
		const url = elsewhere();
		if (!url || form.get("do") !== "open" || form.get("address")) return true;
		try {
			const body = new URLSearchParams({ ticket: main().dataset.ticket, ttl: form.get("ttl") || "" });
			const notice = $("notice") && $("notice").cloneNode(true);
			const answer = await fetch(url + "page/also", { method: "POST", body, credentials: "omit", cache: "no-store" });
			if (answer.ok && await refresh() && notice) main().prepend(notice);
		} catch { /* no such address */ }
		return true;
	}

	// elsewhere is where our address of the other kind shows.
	const elsewhere = () => {
		const { address, v4, v6 } = main().dataset;
		return address ? (address.includes(":") ? v4 : v6) : "";
	};

	// other shows that address.
	async function other() {
		const url = elsewhere();
		if (!url || !$("other")) return;
		if (left) { $("other").textContent = left; $("other").hidden = false; }
		try {
			const answer = await fetch(url + "page/address", { credentials: "omit", cache: "no-store" });
			if (!answer.ok) return;
			const { address } = await answer.json();
			if (address === main().dataset.address) return;
			left = address;
			$("other").textContent = address;
			$("other").hidden = false;
		} catch { /* no such address */ }
	}

	// join takes the invitation out of the address bar.
	function join() {
		const token = decodeURIComponent(location.hash.slice(1));
		if (token) {
			$("token").value = token;
			$("token-field").hidden = true;
			history.replaceState(null, "", location.pathname);
		}
		const kinds = [[/iPad/, "iPad"], [/iPhone/, "iPhone"], [/Android.*Mobile/, "Android phone"], [/Android/, "Android tablet"], [/Mac OS/, "Mac"], [/Windows/, "Windows PC"], [/Linux/, "Linux PC"]];
		const kind = kinds.find(([k]) => k.test(navigator.userAgent));
		if (kind) $("name").value = kind[1];
	}

	document.addEventListener("submit", (e) => {
		if (!("live" in e.target.dataset)) return;
		e.preventDefault();
		send(new FormData(e.target, e.submitter));
	});
	document.addEventListener("change", (e) => {
		if (e.target.id === "ttl") kept.set("ttl", e.target.value);
		if (e.target.id === "auto") kept.set("auto", e.target.checked ? "1" : "");
	});
	addEventListener("offline", () => offline("You are offline. What is open stays open until its time is over."));
	// Coming back, perhaps by another network.
	const back = async () => {
		if (document.hidden || "join" in main().dataset || !("known" in main().dataset)) return;
		if (await refresh() && auto() && !("here" in main().dataset)) keep();
	};
	addEventListener("online", back);
	document.addEventListener("visibilitychange", back);

	if ("join" in main().dataset) join();
	dress();
	other();
	if (location.hash === "#joined") { // for both families
		history.replaceState(null, "", location.pathname);
		if (elsewhere()) keep();
	} else if (auto() && !("here" in main().dataset)) keep();
	setInterval(tick, 1000);
	if ("serviceWorker" in navigator && "known" in main().dataset) {
		navigator.serviceWorker.register("page/worker.js", { scope: "./" }).catch(() => {});
	}
})();
