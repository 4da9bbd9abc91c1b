// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ask sends a message that the library does not know and returns the replies.
func (k *kernel) ask(m netlink.Message) ([]netlink.Message, error) {
	if err := k.open(); err != nil {
		return nil, err
	}
	replies, err := k.link.roundTrip([]netlink.Message{m})
	if err != nil {
		k.close()
		return nil, explain(err)
	}
	for _, r := range replies {
		if r.Header.Type == netlink.Error && len(r.Data) >= 4 {
			if errno := int32(binary.NativeEndian.Uint32(r.Data)); errno != 0 {
				return nil, explain(syscall.Errno(-errno))
			}
		}
	}
	return replies, nil
}

// generation is the number of the kernel's rule set. The library's own way to
// ask hides the error's number.
func (k *kernel) generation() (id uint32, err error) {
	b, err := k.askFor(unix.NFTA_GEN_ID, 4, nfMessage(unix.NFT_MSG_GETGEN, nftables.TableFamilyUnspecified))
	if err != nil {
		return 0, fmt.Errorf("reading the generation of the rule set: %w", err)
	}
	return binary.BigEndian.Uint32(b), nil
}

// nftaTableHandle and nftaSetHandle are constants that x/sys/unix lacks.
const (
	nftaTableHandle = 4
	nftaSetHandle   = 16
)

// tableHandle is a number that no other table of the namespace ever has, also
// not a later one of the same name. Handles of sets and rules begin anew with
// each table.
func (k *kernel) tableHandle(family nftables.TableFamily, table string) (uint64, error) {
	b, err := k.askFor(nftaTableHandle, 8, nfMessage(unix.NFT_MSG_GETTABLE, family, table))
	if err != nil {
		return 0, fmt.Errorf("reading the handle of table %s: %w", table, err)
	}
	return binary.BigEndian.Uint64(b), nil
}

// nfMessage makes a request about something whose attributes begin with names.
func nfMessage(kind uint16, family nftables.TableFamily, names ...string) netlink.Message {
	data := []byte{byte(family), unix.NFNETLINK_V0, 0, 0}
	for i, name := range names {
		value := append([]byte(name), 0)
		data = binary.NativeEndian.AppendUint16(data, uint16(unix.SizeofNlAttr+len(value)))
		data = binary.NativeEndian.AppendUint16(data, uint16(i+1))
		data = append(data, value...)
		for len(data)%unix.NLA_ALIGNTO != 0 {
			data = append(data, 0)
		}
	}
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: netlink.Request},
		Data:   data,
	}
}

// askFor asks and returns one attribute, of that size, of the answer.
func (k *kernel) askFor(attribute uint16, size int, m netlink.Message) ([]byte, error) {
	replies, err := k.ask(m)
	if err != nil {
		return nil, err
	}
	for _, m := range replies {
		ad, err := netlink.NewAttributeDecoder(m.Data[min(4, len(m.Data)):])
		if err != nil {
			return nil, err
		}
		for ad.Next() {
			if b := ad.Bytes(); ad.Type() == attribute && len(b) == size {
				return b, nil
			}
		}
	}
	return nil, errors.New("the kernel did not answer")
}
