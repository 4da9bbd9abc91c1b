// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package knockapp is the Caddy app `knock`: the clients and services, and the
// gatekeeper that every other knock module asks. It is the only package below
// knockcore that imports Caddy.
package knockapp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/cut"
	"github.com/caddy-knock/caddy-knock/knockcore/sequence"
)

func init() { caddy.RegisterModule(new(App)) }

// App is the heart of caddy-knock: it knows who may knock (clients) and what is
// protected (services), and turns knocks into grants. Other modules, such as the
// layer4 handler `knock`, ask it.
type App struct {
	// Clients are those who may knock. IDs must be unique.
	Clients []*Client `json:"clients,omitempty"`

	// ClientsFile is a JSON file with more clients: an object with the member
	// `clients`, a list of objects as in `clients` here. It is read again whenever it
	// changes, without a reload. A version that is missing or bad changes nothing but
	// the health. Removing a client ends its grants and streams.
	ClientsFile string `json:"clients_file,omitempty"`

	// DevicesFile keeps the devices that joined by invitation: their names and the
	// hashes of their keys. It is written when one joins or is revoked, and read again
	// whenever it changes. Default: `knock-devices.json` in Caddy's data directory.
	DevicesFile string `json:"devices_file,omitempty"`

	// Services are what is protected. Names must be unique.
	Services []*Service `json:"services,omitempty"`

	// Methods lists the knock methods that are enabled. Default: all. A client's
	// own list narrows it further. Places that accept knocks (the layer4 modules,
	// sources) enable methods on their own; both must agree.
	Methods []string `json:"methods,omitempty"`

	// TimeWindow is by how much the time inside a frame may differ from this
	// host's clock, either way, both ends included. Default: 30s.
	TimeWindow caddy.Duration `json:"time_window,omitempty"`

	// SessionWait is how long a TCP frame for a service with `require_session`
	// waits for a knock that is still on its way. Default: 1s; negative: not at
	// all.
	SessionWait caddy.Duration `json:"session_wait,omitempty"`

	// AllowLocal lets knocks open for loopback addresses and addresses of this
	// host itself. Usually such a source means that something in front hides the
	// clients' addresses (Docker's userland proxy, say), and one knock would open
	// for everybody behind it. Default: false.
	AllowLocal bool `json:"allow_local,omitempty"`

	// InsecureFileMode accepts key files that others may read, as container
	// secrets often are. Default: false.
	InsecureFileMode bool `json:"insecure_file_mode,omitempty"`

	// Bans keeps addresses on record that fail too often. Default: 10 failures
	// within 10 minutes ban for 10 minutes and longer each time.
	Bans *Bans `json:"bans,omitempty"`

	// MaxPending bounds, over all listeners, the TCP streams that are undecided:
	// accepted, but neither admitted nor known to be a stranger's. When it is
	// reached, the one that has waited longest is treated as a stranger at once.
	// Default: an eighth of the process's file limit.
	MaxPending int `json:"max_pending,omitempty"`

	// MaxGrants bounds the live grants. Default: 1048576.
	MaxGrants int `json:"max_grants,omitempty"`

	// Store is what keeps spent nonces, grants and bans. Default: file.
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=knock.stores inline_key=store"`

	// Sources bring knocks that are packets. Default: none, so that only what other
	// modules take in counts (frames inside TCP streams, say).
	SourcesRaw []json.RawMessage `json:"sources,omitempty" caddy:"namespace=knock.sources inline_key=source"`

	// Doors are port sequences, as of knockd and knock-rs, and what they open. A
	// passive source must show them the packets.
	Doors []*Door `json:"doors,omitempty"`

	// Firewalls open windows for grants, by name; services name the one they use.
	FirewallsRaw caddy.ModuleMap `json:"firewalls,omitempty" caddy:"namespace=knock.firewalls"`

	// At is where the block stands in the Caddyfile, as `file:line`; of several, the
	// first. The Caddyfile adapter sets it; it only appears in error messages.
	At string `json:"at,omitempty"`

	places map[string]string // of clients in the Caddyfile, by ID

	logger  *zap.Logger
	config  knockcore.Config
	store   StoreConverter
	metrics *metrics

	file    *clientsFile
	devices devices
	bans    *knockcore.BanConfig
	plans   map[string]FirewallPlan
	uses    []*firewallUse
	// standing says whether they do.
	standing firewallHealth
	wall     knockcore.Wall // nil if bans are not enforced by a firewall

	guards guards

	doors   []*sequence.Door
	watch   *doorWatch // nil without doors
	sources []*SourceConfig
	open    runningSources
	reading atomic.Pointer[[]*sharedSource] // those of open, for admin requests

	cutter     *cut.Engine // nil if no service cuts
	cutMissing error       // what it cannot do

	started chan struct{} // closed when gate is set
	ended   chan struct{} // closed when this configuration is over, or given up
	atEnd   map[string]func()
	cleanup sync.Once
	gate    *knockcore.Gatekeeper
	live    atomic.Pointer[live]
	cancel  context.CancelFunc
	running sync.WaitGroup

	audit         *zap.Logger
	emitter       *emitter
	refusedLog    sampler
	refusedEvents sampler
}

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "knock",
		New: func() caddy.Module { return &App{started: make(chan struct{}), ended: make(chan struct{})} },
	}
}

// Provision reads the configuration: keys, names, guest modules. It touches
// nothing outside, so that `caddy validate` may run as anybody.
func (a *App) Provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	a.audit = a.logger.Named("audit")
	a.refusedLog.interval, a.refusedEvents.interval = refusalInterval, refusalEvery
	a.metrics = newMetrics(ctx.GetMetricsRegistry())
	var err error
	if a.emitter, err = newEmitter(ctx); err != nil {
		return err
	}
	if err := a.loadStore(ctx); err != nil {
		return err
	}
	cfg := knockcore.Config{
		Window:      time.Duration(a.TimeWindow),
		SessionWait: time.Duration(a.SessionWait),
		Wall:        a.Bans.firewall(),
		Observer:    a.observe,
		Timed:       a.metrics.timed,
		Now:         clock(),
	}
	if a.TimeWindow < 0 {
		return errors.New("time_window must not be negative")
	}
	methods, err := parseMethods(a.Methods)
	if err != nil {
		return fmt.Errorf("methods: %w", err)
	}
	cfg.Methods = methods
	for _, s := range a.Services {
		service, err := s.convert()
		if err != nil {
			return Placed(s.At, err)
		}
		cfg.Services = append(cfg.Services, service)
	}
	if err := a.loadDoors(&cfg); err != nil {
		return err
	}
	var fromFile []*knockcore.Client
	if a.ClientsFile != "" {
		a.file = &clientsFile{path: a.ClientsFile}
		if fromFile, _, err = a.file.read(a); err != nil {
			return Placed(a.At, fmt.Errorf("clients_file: %w", err))
		}
	}
	if err := a.openDevices(); err != nil {
		return Placed(a.At, err)
	}
	a.devices.fromFile = fromFile
	if cfg.Keyring, err = a.keyring(fromFile); err != nil {
		return err
	}
	if a.bans, err = a.Bans.convert(); err != nil {
		return err
	}
	if err := a.loadFirewalls(ctx, cfg.Services); err != nil {
		return err
	}
	if err := a.checkDoors(&cfg); err != nil {
		return err
	}
	if err := a.watchDoors(cfg.Services); err != nil {
		return err
	}
	if err := a.loadSources(ctx, &cfg); err != nil {
		return err
	}
	if err := a.checkSessions(&cfg); err != nil {
		return err
	}
	if err := a.checkDoorSources(); err != nil {
		return err
	}
	if err := a.checkBans(cfg.Services); err != nil {
		return err
	}
	if err := a.checkKnockPorts(cfg.Services); err != nil {
		return err
	}
	if !a.AllowLocal {
		cfg.Local = newLocalAddrs().has
	}
	a.config = cfg
	// A dry run over a state of its own finds what is wrong across clients and
	// services, while loading can still be refused.
	cfg.Firewalls = make(map[string]knockcore.Firewall)
	for name := range a.plans {
		cfg.Firewalls[name] = unopened{}
	}
	_, err = knockcore.NewGatekeeper(cfg, knockcore.NewState(knockcore.NewMemoryStore(1), 1))
	return err
}

func parseMethods(names []string) (knockcore.MethodSet, error) {
	var set knockcore.MethodSet
	for _, name := range names {
		m, err := knockcore.ParseMethod(name)
		if err != nil && strings.Contains(name, ",") {
			return 0, fmt.Errorf("unknown method %q; methods are separated by blanks, not by commas", name)
		}
		if err != nil {
			return 0, err
		}
		set |= knockcore.NewMethodSet(m)
	}
	return set, nil
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
