// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"syscall"
	"unsafe"
)

// hugePage is the usual size of huge pages.
const hugePage = 2 << 20

// wantHugePages asks the kernel to back a great table with huge pages, of which the
// processor can remember more: a random look-up costs a third less. The kernel may
// decline.
func wantHugePages(all []slot) {
	if size := len(all) * int(unsafe.Sizeof(slot{})); size >= hugePage {
		whole := size &^ (syscall.Getpagesize() - 1) // what Go allocates of that size begins with a page
		_ = syscall.Madvise(unsafe.Slice((*byte)(unsafe.Pointer(&all[0])), whole), syscall.MADV_HUGEPAGE)
	}
}
