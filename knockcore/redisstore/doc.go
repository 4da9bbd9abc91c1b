// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package redisstore keeps spent nonces, grants and bans in a Redis or Valkey
// server that several nodes, a fleet, share.
//
// # Why no replay is accepted
//
// A nonce is a key that is made with SET NX, so of all nodes that spend it one
// wins, and it lives until no node could accept the frame any more. It remains to
// see that the server still has every nonce that could matter. It may have lost
// some: replication is asynchronous, and a restart finds old data or none.
//
// Therefore the server's memory has an epoch: an ID that is kept in the server,
// together with the run ID and the replication ID of the server that it began on.
// A restarted or promoted server has other IDs, an emptied one has no epoch; then
// the first node to see it begins a new epoch, and its base is the time of that.
// Whatever was accepted before had a timestamp not later than the base, plus the
// time window, plus by how much clocks differ, which is taken to be a window at
// most; all nodes refuse frames up to there. So a nonce that matters was spent in
// the epoch that is.
//
// That holds only if no nonce is spent in an epoch that has ended. All changes are
// made by a script whose text names epoch and replication ID: it looks at both
// first, the server runs scripts one at a time, and forgets them when it ends
// without giving them to replicas. See changeScript. The script also compares the
// server's clock with what the node thinks that it is, and the node compares it with
// its own: a clock that is set ahead lets keys vanish too early. Keys live a window
// longer than they need to, and a server whose clock differs by more than that is not
// used; when it agrees again, a new epoch begins. And a server that would evict keys
// is not used.
//
// What remains is a master that was cut off from its sentinels, and a node on its
// side: it takes frames there until the partition ends, while the rest of the fleet
// is in a new epoch elsewhere. Replicas in the Settings closes that.
//
// # How nodes follow
//
// Every change is also written to a stream, with a version that is one more than
// that of the change before. Nodes read it from where they were; when a version is
// missing, or the epoch is another, they compare everything: see Store.compare.
// Items carry the version of the change that made them, and deletions leave
// tombstones with theirs, so that what comes late, or from a server with old data,
// does not bring back what was revoked.
package redisstore
