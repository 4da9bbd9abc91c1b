// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
)

// family is the programs for IPv4 or IPv6.
type family struct {
	v6            bool
	save, restore string
	variant       Variant
	lockWait      time.Duration
}

// find returns the path of a program, also where PATH is that of a user.
func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, name))
		}
	}
	if err != nil {
		return "", fmt.Errorf("the program %s is not installed: %w", name, engine.ErrUnsupported)
	}
	return path, nil
}

// locate finds the programs of the variant.
func locate(ctx context.Context, v6 bool, variant Variant, lockWait time.Duration) (*family, error) {
	main := stem(v6)
	path, err := find(main)
	is := Variant("")
	if err == nil {
		if is, err = variantOf(ctx, path); err != nil {
			return nil, err
		}
	}
	if variant != VariantAuto && is != variant {
		main += "-" + string(variant)
		path, err = find(main)
		is = variant
	}
	if err != nil {
		return nil, err
	}
	f := &family{v6: v6, variant: is, lockWait: lockWait}
	// The programs stand beside each other, under whatever name was found.
	for what, target := range map[string]*string{"-save": &f.save, "-restore": &f.restore} {
		*target = filepath.Join(filepath.Dir(path), main+what)
		if _, err := os.Stat(*target); err != nil {
			return nil, fmt.Errorf("%s is installed, %s is not: %w", path, *target, engine.ErrUnsupported)
		}
	}
	return f, nil
}

// variantOf asks an iptables what it is; those before 1.8 do not say, and are
// legacy.
func variantOf(ctx context.Context, path string) (Variant, error) {
	out, err := run(ctx, "", path, "--version")
	if err != nil {
		return "", err
	}
	if strings.Contains(out, "nf_tables") {
		return VariantNFT, nil
	}
	return VariantLegacy, nil
}

func (f *family) read(ctx context.Context, table string) (Saved, error) {
	out, err := run(ctx, "", f.save, "-t", table)
	if err != nil {
		return nil, err
	}
	return parseSaved(out)
}

// write commits a script: all of it or, with an error, nothing.
func (f *family) write(ctx context.Context, script string) error {
	_, err := run(ctx, script, f.restore, "--noflush", "--wait", strconv.Itoa(int(f.lockWait.Seconds())))
	return err
}

// run runs a program without a shell. The context bounds it; programs that wait
// for the lock give up earlier.
func run(ctx context.Context, stdin, path string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err == nil {
		return stdout.String(), nil
	}
	said := strings.Join(strings.Fields(stderr.String()), " ")
	name := filepath.Base(path)
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s did not end: %w", name, ctx.Err())
	case strings.Contains(said, "xtables lock"):
		return "", fmt.Errorf("%s: another program holds the lock of iptables for too long: %s", name, said)
	case strings.Contains(said, "Permission denied") || strings.Contains(said, "must be root") || errors.Is(err, os.ErrPermission):
		return "", fmt.Errorf("%s: no permission; Caddy needs CAP_NET_ADMIN, and to be root for iptables-legacy: %s", name, said)
	default:
		return "", fmt.Errorf("%s: %w: %s", name, err, said[:min(len(said), 500)])
	}
}
