// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// DefaultQueue is how many packets wait at most, for each of the two lanes. One
// address and port has the places of one worker: with four of them, those for some
// ten milliseconds at 100,000 packets per second, which is longer than a worker waits
// for a processor.
const DefaultQueue = 4096

// DefaultWorkers is how many packets are decided at the same time: more than
// there are processors only where those are few, because a decision may have to
// wait for a firewall or a store.
func DefaultWorkers() int { return max(4, runtime.GOMAXPROCS(0)) }

// QueueConfig describes a Queue.
type QueueConfig struct {
	// Size is how many packets wait at most, and as many again of good addresses;
	// 0 means DefaultQueue.
	Size int
	// Workers is how many goroutines call Handle; 0 means DefaultWorkers.
	Workers int
	// Limits knows good addresses and those that are over their limit; nil means
	// that all are alike.
	Limits *knockcore.Limiter
	// InOrder reports whether a packet must not be overtaken by another one of the
	// same address; otherwise, of the same address and port. Nil means never.
	InOrder func(*Packet) bool
	// Handle decides on a packet, which is the handler's until it returns. ctx is
	// done when the queue was closed and waits no longer.
	Handle func(ctx context.Context, p *Packet)
}

// anyMethod is under which method strangers' packets are charged: for which one a
// packet is meant is not known before it is looked at.
const anyMethod = knockcore.MethodNone

// Queue holds packets until a worker has time. Each worker has two lanes: one for
// the addresses that Limits calls good and one for all others. Good ones are
// served first, but for every fourth packet, so that whoever fakes a good address
// does not hold up all others.
type Queue struct {
	cfg    QueueConfig
	seed   uint64
	shards []shard

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// NewQueue makes a queue and starts its workers. Close ends them.
func NewQueue(cfg QueueConfig) *Queue {
	if cfg.Size <= 0 {
		cfg.Size = DefaultQueue
	}
	if cfg.Workers <= 0 {
		cfg.Workers = DefaultWorkers()
	}
	cfg.Workers = min(cfg.Workers, cfg.Size)
	q := &Queue{cfg: cfg, seed: rand.Uint64(), shards: make([]shard, cfg.Workers)}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	for i := range q.shards {
		s := &q.shards[i]
		s.init((cfg.Size + cfg.Workers - 1) / cfg.Workers)
		q.running.Go(func() { q.work(s) })
	}
	return q
}

// verdict is what became of a packet.
type verdict uint8

const (
	queued verdict = iota
	dropFull
	dropLimited
	queueClosed
)

// push copies the packet into the queue, if there is room for it.
func (q *Queue) push(p *Packet) verdict {
	s := &q.shards[0]
	if len(q.shards) > 1 {
		port := p.From.Port()
		if q.cfg.InOrder != nil && q.cfg.InOrder(p) {
			port = 0
		}
		s = &q.shards[q.hash(p.From.Addr(), port)%uint64(len(q.shards))]
	}
	limits := q.cfg.Limits
	lane := laneOther
	if limits != nil && limits.IsGood(p.From.Addr(), p.At) {
		lane = laneGood
	}
	if lane == laneOther && limits != nil && s.busy() && !limits.Allow(p.From.Addr(), anyMethod, p.At) {
		return dropLimited
	}
	return s.push(lane, p)
}

// hash spreads packets over the workers; nobody can aim at one without knowing
// the seed.
func (q *Queue) hash(addr netip.Addr, port uint16) uint64 {
	b := addr.As16()
	hi, lo := bits.Mul64(binary.LittleEndian.Uint64(b[:8])^q.seed, binary.LittleEndian.Uint64(b[8:])^uint64(port)<<16^0x9e3779b97f4a7c15)
	hi, lo = bits.Mul64(hi^lo^q.seed, 0xd6e8feb86659fd93)
	return hi ^ lo
}

func (q *Queue) work(s *shard) {
	var p Packet
	for s.pop(&p) {
		q.cfg.Handle(q.ctx, &p)
	}
}

// Len is how many packets wait.
func (q *Queue) Len() int {
	n := 0
	for i := range q.shards {
		n += q.shards[i].len()
	}
	return n
}

// Close takes no more packets and waits until those that are there are decided.
// When ctx is done, it gives up: the rest is dropped and returned as a number, and
// the context of the decisions that are under way is cancelled; they may go on
// for as long as they take to notice. Closing again does nothing.
func (q *Queue) Close(ctx context.Context) (dropped int) {
	for i := range q.shards {
		q.shards[i].close()
	}
	done := make(chan struct{})
	go func() {
		q.running.Wait()
		close(done)
	}()
	defer q.cancel()
	select {
	case <-done:
		return 0
	case <-ctx.Done():
	}
	for i := range q.shards {
		dropped += q.shards[i].clear()
	}
	return dropped
}
