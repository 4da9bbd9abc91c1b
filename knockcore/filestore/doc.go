// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package filestore keeps spent nonces, grants and bans in a directory, so that
// they survive the end of the process, a kill -9 and, as far as a disk can be
// trusted, a power loss.
//
// # Files
//
//	lock               says who has the directory; locked while it is open
//	horizon            how far the rest can be trusted; written in place
//	snapshot-<number>  everything as of some time
//	journal-<number>   what happened since, in segments of fixed size
//
// Everything has mode 0600, because session IDs are in it. The formats are
// described at the types header, record and horizon.
//
// # Why no replay is accepted
//
// The argument has two parts. The guard (knockcore.ReplayGuard) accepts no frame
// twice that it remembers, nor one at or below its floor. This package has to
// see to it that after a start the guard either remembers every frame that was
// accepted before, or has a floor at or above the timestamp of each that it may
// not remember.
//
// Remembering. A spend writes a record with write(2), without any buffer of ours,
// before it returns. From then on the kernel has it, and the end of this process,
// whichever way, takes nothing from it. So if the machine has not been down since
// (the boot ID is the same), the files are whole, and every write succeeded, then
// everything is remembered and no floor is needed. The same holds for any boot
// after Close, which fsyncs everything and then says so in the horizon, with
// length and checksum of the journal.
//
// The floor. The horizon is a timestamp, in the file of that name, for which
// holds at every moment: no frame with a later timestamp was ever accepted. It is
// kept ahead of the frames: a spend whose timestamp is beyond it first raises it
// in the file (write(2), so this is true for a process that is killed), and
// returns only when the raised horizon is fsynced (so it is true for a power
// loss). A goroutine raises it ahead of need, in steps of two seconds, so only
// the first spend after a pause waits, for one fsync of one block.
// Therefore, whatever became of all other files, a floor at the horizon refuses
// every frame that was ever accepted. No clock has a part in this.
//
// So whenever it is not certain that everything is remembered, the floor is the
// horizon. What is lost by that is little: frames up to about two seconds beyond
// the newest one that was accepted have to be sent again, which is past when a
// machine has booted. (An authorised client whose clock is ahead raises the
// horizon as far, at most by the time window.)
//
// A horizon that only followed the accepted frames, by fsync every 100 ms, would
// not do: after a pause it is minutes old, and a frame accepted between two
// fsyncs, or while an fsync takes longer than usual, lies beyond it.
//
// # What a start refuses
//
//   - After Close, or in the same boot with whole files: nothing.
//   - After a power loss or reboot without Close: frames up to the horizon.
//   - If a file is missing, cut off (at whichever byte: segments have their full
//     size from the beginning, snapshots a seal at the end, and the horizon knows
//     how long the journal was lately), damaged, of another version, or if
//     something could not be written: frames up to the horizon. A last record
//     that was torn by a kill is treated so too, because a torn record can't be
//     told from a damaged one; it costs two seconds.
//   - If the horizon itself is missing or damaged, but anything is in the
//     directory, be it the lock file alone: frames up to the later of the start
//     and the newest one in any file that can be read, plus Options.Window. The
//     horizon has a checksum and is never believed without.
//   - First start, that is an empty or missing directory: frames up to the start,
//     for the time of two Options.Window.
//
// Where there is no boot ID (Windows, some BSDs), every end without Close counts
// as a power loss.
//
// # First start
//
// An empty directory may be a new one, or one whose contents were removed, and
// nothing in it can tell. To refuse a whole time window would be safe in both
// cases, and make everybody who tries the program wait for 30 seconds; to refuse
// nothing would accept what was accepted before a container lost its volume. The
// floor at the start is between: it costs nobody anything whose clock is right,
// since knocks are made after the start, and it refuses all former frames but
// those of clients whose clocks are ahead of ours, for as long as they are ahead.
// It ends when the time check refuses those frames anyway: the first start of a
// new machine is the one that often happens before its clock is set, and the
// owner should not be locked out until then.
//
// Who removes the whole directory of a server that is in use can thus have that
// frames of such clients, not older than the time window, are accepted twice.
// Options.DistrustEmpty closes this gap, at the price of the wait. To remove the
// files but not the lock file closes it too.
//
// # When the disk refuses
//
// The owner is not locked out. A spend whose record can't be written succeeds in
// memory; Health says what is wrong, and the horizon gets a mark, with the
// effect that the next start refuses frames up to it. The mark needs no room: it
// is written into the block that the file has from the beginning. If even that
// fails, the horizon file is removed, with the effect of a missing one. The store
// tries every second to write a snapshot of everything and to begin anew; when it
// has succeeded, nothing is missing any more.
//
// If the disk does not answer for a second, spends go on without the fsync.
//
// # Grants and bans
//
// They are written like nonces, and are fsynced within 100 ms. Their ends are
// kept by the time since boot, which nobody can set, and by the wall clock, which
// counts after a reboot only; nothing lasts longer than it was made for. Grants
// are given up if it can't be excluded that the record of a revocation is among
// what is missing: when files are damaged before what was fsynced last, when the
// horizon is gone, when a live grant was revoked while the disk refused. Their
// owners knock again.
//
// # What is not promised
//
//   - A disk that loses what it said it has fsynced, or a file system that loses
//     what was written without being shut down, such as a stick that is pulled
//     out and put back while the machine runs.
//   - A directory that is put back from a backup or a snapshot of the machine:
//     what was accepted since, and not longer ago than the time window, is not
//     known.
//   - A power loss while the disk refuses or does not answer; a kill while it
//     refuses everything, the removal of a file included. Health says so then.
//   - A revocation within the last 100 ms before a power loss.
//   - Somebody who can write to the directory.
package filestore
