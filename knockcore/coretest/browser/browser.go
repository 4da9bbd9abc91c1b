// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package browser drives a real Chromium in tests.
package browser

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// Browser is a running Chromium with a profile of its own. It asks nobody but the
// sites that it is sent to.
type Browser struct{ ctx context.Context }

// Start starts Chromium until the test ends. Names that rules maps, as in "MAP
// *.test 127.0.0.1", need no name server; certificates need not be known. Wrapper,
// if there is one, is a program to start it with.
func Start(t testing.TB, rules string, wrapper ...string) *Browser {
	t.Helper()
	path := program.Need(t, "chromium")
	opts := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless, chromedp.NoSandbox,
		chromedp.UserDataDir(t.TempDir()), chromedp.Env("HOME=" + t.TempDir()),
		chromedp.Flag("hide-scrollbars", true), chromedp.Flag("force-device-scale-factor", "1"), chromedp.Flag("lang", "en-GB"),
		chromedp.Flag("host-resolver-rules", rules), chromedp.Flag("ignore-certificate-errors", true),
		// Addresses for documentation are local ones to Chromium, if they are IPv6.
		chromedp.Flag("disable-features", "LocalNetworkAccessChecks"),
	}
	for _, off := range []string{
		"disable-gpu", "disable-quic", "disable-background-networking", "disable-component-update", "disable-sync",
		"disable-default-apps", "disable-extensions", "disable-dev-shm-usage", "no-proxy-server",
	} {
		opts = append(opts, chromedp.Flag(off, true))
	}
	if len(wrapper) > 0 {
		opts = append(opts, chromedp.ExecPath(script(t, append(wrapper, path))))
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, closeBrowser := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		closeBrowser()
		stop()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting %s: %v", path, err)
	}
	return &Browser{ctx}
}

// script makes a program that starts another one with its arguments.
func script(t testing.TB, args []string) string {
	path := t.TempDir() + "/chromium"
	for i, arg := range args {
		args[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexec "+strings.Join(args, " ")+" \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// Tab is a tab with cookies and storage of its own.
type Tab struct {
	t         testing.TB
	ctx       context.Context
	noScripts bool

	mu       sync.Mutex
	problems []string
	tolerate []string
}

// Tab opens a tab of a phone with a screen of this size, until the test ends. At the
// end nothing may have gone wrong in it: see Tolerate.
func (b *Browser) Tab(t testing.TB, width, height int64) *Tab {
	t.Helper()
	ctx, closeTab := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext())
	tab := &Tab{t: t, ctx: ctx}
	t.Cleanup(func() {
		tab.check()
		closeTab()
	})
	tab.Do()
	if err := chromedp.Listen(ctx, tab.event); err != nil {
		t.Fatal(err)
	}
	call(tab, log.Enable, cdp.Empty{})
	call(tab, network.Enable, network.EnableParams{})
	call(tab, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: true})
	return tab
}

// event notes what goes wrong in the tab: errors of scripts and on the console,
// violations of the content security policy, answers that are failures.
func (tab *Tab) event(event any) {
	var problem string
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		problem = fmt.Sprintf("exception: %s %v", e.ExceptionDetails.Text, describe(e.ExceptionDetails.Exception))
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			problem = fmt.Sprintf("console %s: %v", e.Type, e.Args)
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			problem = fmt.Sprintf("%s %s: %s %s", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL)
		}
	}
	if problem != "" {
		tab.mu.Lock()
		defer tab.mu.Unlock()
		tab.problems = append(tab.problems, problem)
	}
}

// Tolerate names parts of problems that are meant to happen.
func (tab *Tab) Tolerate(parts ...string) { tab.tolerate = append(tab.tolerate, parts...) }

func (tab *Tab) check() {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	for _, problem := range tab.problems {
		tolerated := false
		for _, part := range tab.tolerate {
			tolerated = tolerated || strings.Contains(problem, part)
		}
		if !tolerated {
			tab.t.Errorf("in the browser: %s", problem)
		}
	}
}

// timeout bounds each thing that is done in a tab.
const timeout = time.Minute

// describe says what a script threw.
func describe(o *runtime.RemoteObject) string {
	if o == nil {
		return ""
	}
	return o.Description
}

// call sends a command of the DevTools protocol.
func call[P, R any](tab *Tab, command cdp.Command[P, R], params P) {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(tab.ctx, timeout)
	defer cancel()
	if _, err := chromedp.Call(ctx, command, params); err != nil {
		tab.t.Fatalf("in the browser: %v", err)
	}
}

// Do runs actions.
func (tab *Tab) Do(actions ...chromedp.Action[chromedp.Void]) {
	tab.t.Helper()
	if len(actions) == 0 { // opens the tab, whose life is not bounded
		if err := chromedp.Do(tab.ctx); err != nil {
			tab.t.Fatalf("opening a tab: %v", err)
		}
		return
	}
	ctx, cancel := context.WithTimeout(tab.ctx, timeout)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		tab.t.Fatalf("in the browser: %v; the page says:\n%s", err, tab.Text())
	}
}

// Text is what the page says, with its address.
func (tab *Tab) Text() string {
	ctx, cancel := context.WithTimeout(tab.ctx, 2*time.Second)
	defer cancel()
	text, _ := chromedp.Run(ctx, chromedp.Evaluate[string]("location.href + '\\n' + document.body.innerText"))
	return text
}

// Go opens a page and waits until it is loaded.
func (tab *Tab) Go(url string) {
	tab.t.Helper()
	tab.Do(chromedp.Navigate(url))
}

// Click clicks on what the CSS selector finds. The pointer goes where it is; if what
// comes late has moved it by then, it is clicked again.
func (tab *Tab) Click(selector string) {
	tab.t.Helper()
	for range 3 {
		Eval[bool](tab, fmt.Sprintf("window.missed = true, document.addEventListener('click', (e) => { if (e.target.closest(%q)) window.missed = false }, true), true", selector))
		tab.Do(chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
		ctx, cancel := context.WithTimeout(tab.ctx, timeout)
		missed, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("window.missed === true"))
		cancel()
		// An error: it leads to another page. Without scripts nothing moves, nor tells.
		if err != nil || !missed || tab.noScripts {
			return
		}
	}
	tab.t.Fatalf("%s moves away from the pointer", selector)
}

// Submit clicks what leads to another page, and waits for that.
func (tab *Tab) Submit(selector string) {
	tab.t.Helper()
	Eval[bool](tab, "document.documentElement.dataset.left = true")
	tab.Click(selector)
	tab.Await("the next page", "document.readyState === 'complete' && !document.documentElement.dataset.left")
}

// Type types into what the CSS selector finds.
func (tab *Tab) Type(selector, text string) {
	tab.t.Helper()
	tab.Do(chromedp.SendKeys(chromedp.CSS(selector), text, chromedp.NodeVisible))
}

// Key presses keys where the focus is.
func (tab *Tab) Key(keys string) {
	tab.t.Helper()
	tab.Do(chromedp.KeyEvent(keys))
}

// Eval evaluates an expression, which may be a promise.
func Eval[T any](tab *Tab, expression string) T {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(tab.ctx, timeout)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		tab.t.Fatalf("evaluating %.200s: %v", expression, err)
	}
	return v
}

// Await waits until an expression is true.
func (tab *Tab) Await(what, expression string) {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(tab.ctx, timeout)
	defer cancel()
	for {
		if is, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")")); err == nil && is {
			return
		}
		select {
		case <-ctx.Done():
			tab.t.Fatalf("waited in vain for %s; the page says:\n%s", what, tab.Text())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// AwaitText waits until the page shows the text.
func (tab *Tab) AwaitText(text string) {
	tab.t.Helper()
	tab.Await(fmt.Sprintf("%q", text), fmt.Sprintf("document.body && document.body.innerText.includes(%q)", text))
}

// Shot takes a picture of what is seen, as PNG.
func (tab *Tab) Shot() []byte {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(tab.ctx, timeout)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		tab.t.Fatal(err)
	}
	return png
}

// Scheme says whether the user prefers light or dark.
func (tab *Tab) Scheme(scheme string) {
	tab.t.Helper()
	call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}, // at once, for pictures
	}})
}

// Resize makes the screen another one.
func (tab *Tab) Resize(width, height int64) {
	tab.t.Helper()
	call(tab, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: true})
}

// Script says whether scripts may run in what is opened next.
func (tab *Tab) Script(may bool) {
	tab.t.Helper()
	tab.noScripts = !may
	call(tab, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !may})
}

// Offline cuts the tab off, or connects it again.
func (tab *Tab) Offline(offline bool) {
	tab.t.Helper()
	both := true
	call(tab, network.EmulateNetworkConditionsByRule, network.EmulateNetworkConditionsByRuleParams{
		EmulateOfflineServiceWorker: &both,
		MatchedNetworkConditions:    []*network.Conditions{{Offline: offline, DownloadThroughput: -1, UploadThroughput: -1}},
	})
	call(tab, network.OverrideNetworkState, network.OverrideNetworkStateParams{Offline: offline, DownloadThroughput: -1, UploadThroughput: -1})
}
