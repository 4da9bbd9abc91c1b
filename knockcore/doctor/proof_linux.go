// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// The link between the host and the stranger: addresses for tests and for
// documentation (RFC 2544, RFC 3849), which are nobody's.
const (
	hostDevice     = "knockdoc0"
	strangerDevice = "knockdoc1"
	host4          = "198.18.254.1"
	stranger4      = "198.18.254.2"
	host6          = "2001:db8:d0c7::1"
	stranger6      = "2001:db8:d0c7::2"
	proofTimeout   = 700 * time.Millisecond
	controlTimeout = 4 * time.Second // time for a lost SYN and a busy host
)

// prove tries each service as a stranger: from a network namespace with a link to
// this host, so that packets pass its firewall as those from outside do.
func prove(ctx context.Context, p *Plan) (proofs []Proof, found []Finding) {
	if len(p.Services) == 0 {
		return nil, nil
	}
	asStranger(func(stranger int, err error) {
		if err != nil {
			found = []Finding{{ID: "proof", Level: Note, Text: fmt.Sprintf("nothing was proved from outside: %v", err), Advice: "run the doctor as root"}}
			return
		}
		for _, from := range []struct{ family, host string }{{"ipv4", host4}, {"ipv6", host6}} {
			if err := control(from.host); err != nil {
				found = append(found, Finding{
					ID: "proof", Level: Warning, Text: fmt.Sprintf("over %s a stranger reaches nothing of this host, not even an open port (%v): that services are closed proves nothing about the gate", from.family, err),
					Advice: "another firewall drops everything: see foreign-drop",
				})
				continue
			}
			tried, open := p.tryAll(ctx, stranger, from.family, from.host)
			proofs, found = append(proofs, tried...), append(found, open...)
		}
	})
	return proofs, found
}

// atOnce is how many ports are tried at the same time.
const atOnce = 16

// tryAll tries each port of the services, from the stranger's namespace.
func (p *Plan) tryAll(ctx context.Context, stranger int, family, host string) (proofs []Proof, found []Finding) {
	var services []*knockcore.Service
	for _, s := range p.Services {
		for _, port := range s.Ports {
			services = append(services, s)
			proofs = append(proofs, Proof{Service: s.Name, Port: port.String(), Family: family, Verdict: Unproved})
		}
	}
	var all sync.WaitGroup
	places := make(chan struct{}, atOnce)
	for i := range proofs {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			runtime.LockOSThread() // never unlocked: the thread ends here
			if err := unix.Setns(stranger, unix.CLONE_NEWNET); err != nil {
				proofs[i].Detail = err.Error()
				return
			}
			proofs[i].try(ctx, host)
		})
	}
	all.Wait()
	for i := range proofs {
		found = append(found, p.judge(services[i], &proofs[i])...)
	}
	return proofs, found
}

// judge says what an open port means.
func (p *Plan) judge(s *knockcore.Service, proof *Proof) []Finding {
	switch {
	case proof.Verdict != Open:
		return nil
	case p.gated(s):
		return []Finding{{
			ID: "open", Level: Problem, Subject: s.Name, Text: fmt.Sprintf("proved open: a stranger reaches %s over %s (%s)", proof.Port, proof.Family, proof.Detail),
			Advice: "is Caddy running, and does its firewall look at all interfaces? See caddy knock status and the other findings",
		}}
	case p.Guarded != nil && p.Guarded(s.Name):
		proof.Guarded = true
		return nil // the cover answers
	default:
		return []Finding{{
			ID: "open", Level: Problem, Subject: s.Name, Text: fmt.Sprintf("proved open: a stranger reaches %s over %s, and nothing guards it", proof.Port, proof.Family),
			Advice: "add `firewall nftables` to the service, a layer4 route with `knock " + s.Name + "`, or a matcher `knocked " + s.Name + "`",
		}}
	}
}

// try connects to the port, or sends it a datagram.
func (p *Proof) try(ctx context.Context, host string) {
	port, err := knockcore.ParsePortRange(p.Port)
	if err != nil {
		p.Detail = err.Error()
		return
	}
	d := net.Dialer{Timeout: proofTimeout}
	conn, err := d.DialContext(ctx, port.Protocol.String(), net.JoinHostPort(host, strconv.Itoa(int(port.Low))))
	if err == nil {
		defer conn.Close()
		if port.Protocol == knockcore.TCP {
			p.Verdict, p.Detail = Open, "it takes connections"
			return
		}
		_ = conn.SetDeadline(time.Now().Add(proofTimeout))
		if _, err = conn.Write([]byte("knock doctor")); err == nil {
			if _, err = conn.Read(make([]byte, 1)); err == nil {
				p.Verdict, p.Detail = Open, "it answers"
				return
			}
		}
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		p.Verdict, p.Detail = Closed, "refused"
	case timedOut(err) && port.Protocol == knockcore.UDP:
		p.Verdict, p.Detail = Silent, "nothing came back"
	case timedOut(err) || errors.Is(err, syscall.EHOSTUNREACH):
		p.Verdict, p.Detail = Closed, "filtered: nothing came back"
	default:
		p.Detail = err.Error()
	}
}

func timedOut(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) && netErr.Timeout()
}

// control makes sure that a stranger reaches an open port of the host at all.
func control(host string) error {
	accepted := make(chan net.Listener)
	go func() { // a goroutine of its own is on the host
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			l = nil
		}
		accepted <- l
	}()
	l := <-accepted
	if l == nil {
		return errors.New("this host has no such address")
	}
	defer l.Close()
	conn, err := net.DialTimeout("tcp", l.Addr().String(), controlTimeout)
	if err != nil {
		return err
	}
	return conn.Close()
}

// asStranger runs f on a thread in a network namespace, of which it gets a file
// descriptor, with a link to this host. The namespace, and the link with it, ends
// with the thread.
func asStranger(f func(namespace int, err error)) {
	link, err := netlink.NewHandle() // in this host's namespace
	if err != nil {
		f(0, err)
		return
	}
	defer link.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			f(0, fmt.Errorf("making a network namespace: %w", err))
			return
		}
		ns, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		if err != nil {
			f(0, err)
			return
		}
		defer ns.Close()
		f(int(ns.Fd()), connect(link, int(ns.Fd())))
		if dev, err := link.LinkByName(hostDevice); err == nil {
			_ = link.LinkDel(dev)
		}
	}()
	<-done
}

// connect makes the link between host and the namespace of this thread.
func connect(host *netlink.Handle, namespace int) error {
	if old, err := host.LinkByName(hostDevice); err == nil {
		_ = host.LinkDel(old) // of a doctor that was killed
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = hostDevice
	if err := host.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: strangerDevice, PeerNamespace: netlink.NsFd(namespace)}); err != nil {
		return fmt.Errorf("making a link: %w", err)
	}
	here, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer here.Close()
	for _, side := range []struct {
		handle *netlink.Handle
		device string
		addrs  []string
	}{{host, hostDevice, []string{host4 + "/30", host6 + "/64"}}, {here, strangerDevice, []string{stranger4 + "/30", stranger6 + "/64"}}} {
		dev, err := side.handle.LinkByName(side.device)
		if err != nil {
			return err
		}
		for _, text := range side.addrs {
			addr, err := netlink.ParseAddr(text)
			if err != nil {
				return err
			}
			addr.Flags = unix.IFA_F_NODAD
			// Without IPv6 there is no such address, and the control says so.
			if err := side.handle.AddrAdd(dev, addr); err != nil && addr.IP.To4() != nil {
				return fmt.Errorf("giving the link an address: %w", err)
			}
		}
		if err := side.handle.LinkSetUp(dev); err != nil {
			return err
		}
	}
	return nil
}
